// Package docs_test checks the documents of this module, and holds the programs that they
// show and no other package has.
package docs_test

import (
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// files returns the texts of the module's files of a kind, by path.
func files(t *testing.T, extension string) map[string]string {
	texts := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && len(name) > 2 && name[0] == '.', d.IsDir() && name == "testdata":
			return fs.SkipDir
		case filepath.Ext(name) != extension || d.IsDir():
			return nil
		}
		text, err := os.ReadFile(path)
		texts[path] = strings.ReplaceAll(string(text), "\r\n", "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

var (
	block  = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	inline = regexp.MustCompile("`[^`]*`")
	link   = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// A block of Go in a document is a part of a Go file here, in lines next to each other, and
// a block of output a part of the output that an example is tested for. So neither can
// become wrong without a failure.
func TestDocuments_ShowWhatIsTested(t *testing.T) {
	var source strings.Builder
	for _, text := range files(t, ".go") {
		source.WriteString("\n" + text)
	}
	code := source.String()
	shown := 0
	for path, text := range files(t, ".md") {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			prefix := map[string]string{"go": "", "output": "// "}
			before, ok := prefix[m[1]]
			if !ok {
				continue
			}
			shown++
			found := false
			for _, indent := range []string{"", "\t", "\t\t", "\t\t\t"} {
				found = found || strings.Contains(code, indented(m[2], indent+before))
			}
			if !found {
				t.Errorf("%s shows this, which no Go file has in these lines:\n%s", path, m[2])
			}
		}
	}
	if shown == 0 {
		t.Error("no document shows any Go")
	}
}

// indented is the text as it stands in a file, with prefix before each line; of an empty
// one gofmt removes the white space.
func indented(text, prefix string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for line := range strings.Lines(text) {
		if line == "\n" {
			b.WriteString(strings.TrimRight(prefix, " \t"))
		} else {
			b.WriteString(prefix)
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestDocuments_LinkToFiles(t *testing.T) {
	for path, text := range files(t, ".md") {
		text = inline.ReplaceAllString(block.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// check is what the documents mean by it: the program stops on an error.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
