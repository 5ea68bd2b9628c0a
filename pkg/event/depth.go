package event

// Depth is the deepest nesting of objects and arrays in a JSON text: 0 for a
// plain value, 1 for {}. It reads the text once and allocates nothing, so it
// tells what is safe to give to a recursive parser. For text that is not JSON
// it is at least the depth that a parser reaches before it finds that out.
func Depth(b []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString:
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
