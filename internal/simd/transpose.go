package simd

// Transpose sets dst[j·ldd+i] = src[i·lds+j] for i < m and j < n. They do not overlap.
func Transpose[T Float](dst []T, ldd int, src []T, lds, m, n int) {
	if m == 0 || n == 0 {
		return
	}
	_, _ = dst[(n-1)*ldd+m-1], src[(m-1)*lds+n-1]
	rows, cols := transposeAsm(dst, ldd, src, lds, m, n)
	for i := range m {
		j := 0
		if i < rows {
			j = cols
		}
		for ; j < n; j++ {
			dst[j*ldd+i] = src[i*lds+j]
		}
	}
}

// contiguous reports whether rows follow each other.
func contiguous(rows []int32) bool {
	return int(rows[len(rows)-1]-rows[0]) == len(rows)-1
}

// Gather takes rows of a row-major batch of width d into a feature-major tile,
//
//	dst[j·ld+i] = src[rows[i]·d+j]
//
// for the ascending rows, of which there is at least one, and fills the other lanes, up to
// ld, with the last.
func Gather[T Float](dst []T, ld int, src []T, rows []int32, d int) {
	n := len(rows)
	if contiguous(rows) {
		Transpose(dst, ld, src[int(rows[0])*d:], d, n, d)
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
// with add adds it to them. rows are ascending.
func Scatter[T Float](dst []T, src []T, ld int, rows []int32, d int, alpha T, add bool) {
	if contiguous(rows) && !add {
		to := dst[int(rows[0])*d : (int(rows[0])+len(rows))*d]
		Transpose(to, d, src, ld, d, len(rows))
		if alpha != 1 {
			for i := range to {
				to[i] *= alpha
			}
		}
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
