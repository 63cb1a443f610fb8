package channel

import "errors"

type Kind uint8

const (
	KindPayload Kind = iota
	KindRefresh
	KindClose
)

var CloseMessage = []byte{0x82, 0x82, 2, 0x80, 0x40}

var ErrPlain = errors.New("channel: malformed plaintext")

func ParsePlaintext(b []byte) (Kind, []byte, error) {
	if len(b) < 5 || b[0] != 0x82 || b[1] != 0x82 || b[2] > 2 {
		return 0, nil, ErrPlain
	}
	if b[2] == 2 {
		return KindClose, nil, nil
	}
	if b[3] != 0x81 {
		return 0, nil, ErrPlain
	}
	return Kind(b[2]), b[4:], nil
}
func AppendRefresh(dst, content []byte) []byte {
	dst = append(dst, 0x82, 0x82, 1, 0x81)
	dst = append(dst, content...)
	return append(dst, 0x40)
}
