package rpc

import "sallyport/internal/cborhead"

func appendText(b []byte, s string) []byte {
	return append(cborhead.Append(b, cborhead.Text, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xf5)
	}
	return append(b, 0xf4)
}
