package observe

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// clip keeps a message at a size that a condition can hold, and makes it text
// that JSON can hold.
func clip(s string) string {
	const most = 1024
	if len(s) > most {
		cut := most
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// sentence is the error as a message of a condition begins: with a capital.
func sentence(err error) string {
	text := clip(err.Error())
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
