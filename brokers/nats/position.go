package nats

import (
	"fmt"
	"strconv"
	"strings"
)

// A position is a place in one stream.
type position struct {
	// stream identifies this life of the stream: the sequences of a stream
	// that was deleted and made again start over.
	stream   string
	sequence uint64
}

func (p position) String() string {
	if p.stream == "" {
		return ""
	}
	return p.stream + ":" + strconv.FormatUint(p.sequence, 10)
}

// parsePosition reads what String wrote.
func parsePosition(s string) (position, error) {
	stream, seq, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !ok || stream == "" || err != nil {
		return position{}, fmt.Errorf("position %.64q is not one of this broker", s)
	}
	return position{stream, n}, nil
}
