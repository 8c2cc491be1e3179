package table

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/sbinet/npyio"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(path string, l Layout) (*Set, error) {
	t, err := Read(path, nil)
	if err != nil {
		return nil, err
	}
	return t.Series(l)
}

func wantSeries(t *testing.T, got *Set, want []Series) {
	t.Helper()
	if len(got.Series) != len(want) {
		t.Fatalf("%d series, want %d", len(got.Series), len(want))
	}
	for i, w := range want {
		// As text, in which a NaN equals another.
		if got, want := fmt.Sprintf("%+v", got.Series[i]), fmt.Sprintf("%+v", w); got != want {
			t.Errorf("series %d is %s, want %s", i, got, want)
		}
	}
}

var nan = math.NaN()

func TestRead_CSV(t *testing.T) {
	mixed := []Series{
		{ID: "p", Times: []float64{0, 1, 2.5}, Values: []float64{1, 2, nan, 3, 4, 5}},
		{ID: "q", Times: []float64{0.5}, Values: []float64{7, nan}},
	}
	for name, text := range map[string]string{
		"commas":     "series,t,x,y\np,0,1,2\nq,.5,7,NA\np,1,,3\np,2.5,4,5\n",
		"semicolons": "series;t;x;y\r\np;0;1;2\r\nq;.5;7;\r\np;1;null;3\r\np;2.5;4;5\r\n",
		"tabs, BOM":  "\xef\xbb\xbfseries\tt\tx\ty\np\t0\t1\t2\nq\t.5\t7\t?\np\t1\t\t3\np\t2.5\t4\t5",
		"quotes":     "\"series\",\"t\",\"x\",\"y\"\n\"p\",0, 1,2\nq,.5,7,-\np,1,nan,3\np,2.5,4,5\n",
	} {
		set, err := read(write(t, "a.csv", text), Layout{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantSeries(t, set, mixed)
	}
	set, err := read(write(t, "a.csv", "day,x,y,note\n1,2,3,n\n2,4,5,n\n"), Layout{States: []string{"y"}})
	if err != nil {
		t.Fatal(err)
	}
	if set.Time != "day" || set.ID != "" {
		t.Errorf("the columns are %+v", set.Layout)
	}
	wantSeries(t, set, []Series{{Times: []float64{1, 2}, Values: []float64{3, 5}}})
}

func TestRead_CSVErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		layout Layout
		want   []string
	}{
		{"", Layout{}, []string{"is empty"}},
		{" \n\n", Layout{}, []string{"is empty"}},
		{"t,x\n", Layout{}, []string{"no rows"}},
		{"t,x\n0,1\n", Layout{States: []string{"z"}}, []string{`no column "z"`, "it has t, x"}},
		{"t,x\n0,1\n", Layout{ID: "who"}, []string{`no column "who"`, "it has t, x"}},
		{"t\n0\n", Layout{}, []string{"no column of states"}},
		{"t,x\n0,1\n", Layout{States: []string{"t"}}, []string{"only one of"}},
		{"t,x\n0,1\n", Layout{States: []string{"x", "x"}}, []string{`"x" is named twice`}},
		{"t,x\n0,1\n2,1\n1,1\n", Layout{}, []string{"line 4", "time 1 is not after", "line 3", "sort", "--id"}},
		{"t,x\n0,1\n\n0,1\n", Layout{}, []string{"line 4", "is the same as", "line 2"}},
		{"id,t,x\na,0,1\nb,0,1\na,0,1\n", Layout{ID: "id"}, []string{"line 4", `series "a"`, "line 2"}},
		{"t,x\n,1\n", Layout{}, []string{"line 2", "time is missing"}},
		{"t,x,y\n0,1,2\n1,one,2\n", Layout{}, []string{"line 3", `column "x"`, `"one" is no number`}},
		{"t;x\n0;1,5\n", Layout{}, []string{"line 2", "decimal point"}},
		{"t,x\n0,inf\n", Layout{}, []string{"line 2", "not finite"}},
		{"t,x\n0,1\n1\n", Layout{}, []string{"line 3 has 1 cells", "header 2"}},
		{"t,x,x\n0,1,1\n", Layout{}, []string{`two columns "x"`}},
		{"t,,x\n0,1,1\n", Layout{}, []string{"column 2", "no name"}},
		{"\xff\xfet\x00,\x00", Layout{}, []string{"UTF-16", "iconv"}},
		{"\xfe\xff\x00t\x00,", Layout{}, []string{"UTF-16", "iconv"}},
		{"t,x\n0,1\n1,\xe9\n", Layout{}, []string{"line 3", "not in UTF-8", "LATIN1"}},
		{"t,x\n0,\x00\n", Layout{}, []string{"not text"}},
		{"PAR1....", Layout{}, []string{"Parquet", ".parquet"}},
	} {
		_, err := read(write(t, "a.csv", c.text), c.layout)
		wantError(t, c.text, err, c.want...)
	}
}

func wantError(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%q: no error, want one with %q", what, parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q: error %q lacks %q", what, err, p)
		}
	}
}

func TestRead_FileErrors(t *testing.T) {
	_, err := Read(t.TempDir(), nil)
	wantError(t, "directory", err, "is a directory")
	_, err = Read(filepath.Join(t.TempDir(), "none.csv"), nil)
	wantError(t, "no file", err, "does not exist")
	_, err = Read(write(t, "a.parquet", ""), nil)
	wantError(t, "empty", err, "is empty")
	_, err = Read(write(t, "a.parquet", "PAR1 and nothing else PAR1"), nil)
	wantError(t, "damaged", err, "Parquet")
	_, err = Read(write(t, "a.npy", "no array"), nil)
	wantError(t, "damaged", err, "NumPy")

	huge := write(t, "a.csv", "t,x\n0,1\n")
	if err := os.Truncate(huge, MaxBytes+1); err == nil { // a sparse file, where there are any
		_, err = Read(huge, nil)
		wantError(t, "huge", err, "at most 4 GB")
	}
	if runtime.GOOS == "windows" || os.Getuid() == 0 {
		return // everything may be read
	}
	secret := write(t, "a.csv", "t,x\n0,1\n")
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	_, err = Read(secret, nil)
	wantError(t, "secret", err, "may not be read")
}

func TestOpen_NamesThePermission(t *testing.T) {
	wantError(t, "secret", Explain("a.csv", &os.PathError{Op: "open", Path: "a.csv", Err: os.ErrPermission}), "may not be read", "permissions")
}

func TestRead_StandardInput(t *testing.T) {
	table, err := Read("-", strings.NewReader("t,x\n0,1\n"))
	if err != nil || table.Rows() != 1 {
		t.Errorf("table %+v, error %v", table, err)
	}
}

func TestRead_Parquet(t *testing.T) {
	type row struct {
		Series string   `parquet:"series"`
		T      float64  `parquet:"t"`
		N      int32    `parquet:"n"`
		X      *float32 `parquet:"x,optional"`
	}
	x := float32(0.5)
	var b bytes.Buffer
	if err := parquet.Write(&b, []row{{"p", 0, 3, &x}, {"q", 0, 4, nil}, {"p", 1, 5, &x}}); err != nil {
		t.Fatal(err)
	}
	path := write(t, "a.parquet", b.String())
	set, err := read(path, Layout{States: []string{"n", "x"}})
	if err != nil {
		t.Fatal(err)
	}
	wantSeries(t, set, []Series{
		{ID: "p", Times: []float64{0, 1}, Values: []float64{3, 0.5, 5, 0.5}},
		{ID: "q", Times: []float64{0}, Values: []float64{4, nan}},
	})
	_, err = read(path, Layout{Time: "time"})
	wantError(t, "no time", err, `no column "time"`, "series")
}

func TestRead_NumPy(t *testing.T) {
	for name, value := range map[string]any{
		"float64": [2][3]float64{{0, 1, 2}, {1, nan, 3}},
		"float32": [2][3]float32{{0, 1, 2}, {1, float32(nan), 3}},
	} {
		var b bytes.Buffer
		if err := npyio.Write(&b, value); err != nil {
			t.Fatal(name, err)
		}
		set, err := read(write(t, "a.npy", b.String()), Layout{})
		if err != nil {
			t.Fatal(name, err)
		}
		if !reflect.DeepEqual(set.States, []string{"x0", "x1"}) {
			t.Errorf("states %q", set.States)
		}
		wantSeries(t, set, []Series{{Times: []float64{0, 1}, Values: []float64{1, 2, nan, 3}}})
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add("series,t,x\na,0,1\n")
	f.Add("t;x\n0;1,5\n")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := ReadCSV("a.csv", strings.NewReader(text))
		if err != nil {
			return
		}
		if set, err := table.Series(Layout{}); err == nil {
			for _, s := range set.Series {
				if len(s.Times) == 0 || len(s.Values) != len(s.Times)*len(set.States) {
					t.Errorf("series %+v of states %q", s, set.States)
				}
			}
		}
	})
}
