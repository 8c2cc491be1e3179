package simd

// Transpose sets dst[j·ldd+i] = src[i·lds+j] for i < m and j < n. They do not overlap.
func Transpose[T Float](dst []T, ldd int, src []T, lds, m, n int) {
	if m <= 0 || n <= 0 {
		return
	}
	if ldd < m || lds < n {
		panic("simd: Transpose with rows that overlap")
	}
	_, _ = dst[(n-1)*ldd+m-1], src[(m-1)*lds+n-1]
	if transposeAsm(dst, ldd, src, lds, m, n) {
		return
	}
	for i := range m {
		for j, v := range src[i*lds : i*lds+n] {
			dst[j*ldd+i] = v
		}
	}
}

// Gather takes rows of a row-major batch of width d into a feature-major tile,
//
//	dst[j·ld+i] = src[rows[i]·d+j]
//
// for the ascending rows, of which there is at least one, and fills the other lanes, up to
// ld, with the last.
func Gather[T Float](dst []T, ld int, src []T, rows []int32, d int) {
	n := len(rows)
	if n == 0 || n > ld {
		panic("simd: Gather of no rows, or of more than lanes")
	}
	checkRows(len(dst), ld, len(src), rows, d)
	if d == 1 && contiguous(rows) {
		copy(dst, src[rows[0]:int(rows[0])+n])
	} else if gatherAsm(dst, ld, src, rows, d) {
		return
	} else {
		for i, r := range rows {
			for j, v := range src[int(r)*d : int(r)*d+d] {
				dst[j*ld+i] = v
			}
		}
	}
	if n == ld {
		return
	}
	for j := range d {
		lanes := dst[j*ld : j*ld+ld]
		for i := n; i < ld; i++ {
			lanes[i] = lanes[n-1]
		}
	}
}

// Scatter takes a tile back to rows of a batch: dst[rows[i]·d+j] = alpha·src[j·ld+i], or
// with add adds it to them. rows ascend. The assembly
// rounds such a sum once.
func Scatter[T Float](dst []T, src []T, ld int, rows []int32, d int, alpha T, add bool) {
	if len(rows) > ld {
		panic("simd: Scatter of more rows than lanes")
	}
	checkRows(len(src), ld, len(dst), rows, d)
	if scatterAsm(dst, src, ld, rows, d, alpha, add) {
		return
	}
	for i, r := range rows {
		to := dst[int(r)*d : int(r)*d+d]
		for j := range to {
			v := alpha * src[j*ld+i]
			if add {
				v += to[j]
			}
			to[j] = v
		}
	}
}

// contiguous reports whether rows, which ascend, follow each other.
func contiguous(rows []int32) bool {
	return int(rows[len(rows)-1]-rows[0]) == len(rows)-1
}

// checkRows panics unless a tile has d rows of ld lanes, and a batch all the rows.
func checkRows(tile, ld, batch int, rows []int32, d int) {
	if d < 0 || tile < d*ld {
		panic("simd: tile too short")
	}
	n := len(rows)
	if d == 0 || n == 0 {
		return
	}
	most := batch / d
	if contiguous(rows) { // and are taken so
		if rows[0] < 0 || int(rows[n-1]) >= most {
			panic("simd: no such row")
		}
		return
	}
	for _, r := range rows {
		if r < 0 || int(r) >= most {
			panic("simd: no such row")
		}
	}
}
