package config

import "encoding/json"

// appendJSON appends v as JSON, keys in the order of the file.
func (v *value) appendJSON(b []byte) []byte {
	text := func(s string) { j, _ := json.Marshal(s); b = append(b, j...) }
	switch v.kind {
	case null:
		b = append(b, "null"...)
	case boolean:
		b = append(b, v.text...)
	case scalar:
		if v.number && json.Valid([]byte(v.text)) {
			b = append(b, v.text...)
		} else {
			text(v.text)
		}
	case sequence:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		b = append(b, ']')
	case mapping:
		b = append(b, '{')
		for i, e := range v.entries {
			if i > 0 {
				b = append(b, ',')
			}
			text(e.key)
			b = e.value.appendJSON(append(b, ':'))
		}
		b = append(b, '}')
	}
	return b
}
