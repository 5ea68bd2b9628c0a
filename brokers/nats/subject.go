package nats

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// Second tokens of all subjects, one for each lane.
const (
	spec        = "spec"
	status      = "status"
	allClusters = "all-clusters"
	allSources  = "all-sources"
)

// emptyToken spells the empty string, which no subject can hold. It is no
// escape sequence, so no other string is spelled like it.
const emptyToken = "%"

// maxSubject keeps a publish below the 4,096 bytes that a server takes for a
// protocol line, which holds the reply subject too.
const maxSubject = 3072

var errSubject = errors.New("not a subject of this prefix")

// plain says which bytes stand for themselves in a token. The others would
// end a token, match more than themselves, or end a name in the file system of
// the server, which names consumers' folders after them.
func plain(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune(`.*>%/\"`, rune(c))
}

// token spells any string as one token of a subject.
func token(s string) string {
	if s == "" {
		return emptyToken
	}
	escaped := 0
	for i := range len(s) {
		if !plain(s[i]) {
			escaped++
		}
	}
	if escaped == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*escaped)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// fromToken reads what token wrote, and nothing else: two spellings of one
// name would be two addresses to the broker and one to the subscriber.
func fromToken(tok string) (string, error) {
	if tok == emptyToken {
		return "", nil
	}
	if !strings.Contains(tok, "%") {
		if tok == "" || token(tok) != tok {
			return "", errSubject
		}
		return tok, nil
	}
	b := make([]byte, 0, len(tok))
	for i := 0; i < len(tok); i++ {
		if tok[i] != '%' {
			b = append(b, tok[i])
			continue
		}
		if i+2 >= len(tok) {
			return "", errSubject
		}
		c, ok := unhex(tok[i+1], tok[i+2])
		if !ok {
			return "", errSubject
		}
		b = append(b, c)
		i += 2
	}
	if s := string(b); token(s) == tok {
		return s, nil
	}
	return "", errSubject
}

func unhex(high, low byte) (byte, bool) {
	digit := func(c byte) (byte, bool) {
		switch {
		case c >= '0' && c <= '9':
			return c - '0', true
		case c >= 'A' && c <= 'F':
			return c - 'A' + 10, true
		case c >= 'a' && c <= 'f':
			return c - 'a' + 10, true
		}
		return 0, false
	}
	h, ok1 := digit(high)
	l, ok2 := digit(low)
	return h<<4 | l, ok1 && ok2
}

// subject spells a valid topic.
func subject(prefix string, t brokers.Topic) (string, error) {
	var s string
	switch t.Lane {
	case brokers.ToCluster:
		s = join(prefix, spec, token(t.Cluster), token(t.Source), token(t.Key))
	case brokers.ToSource:
		s = join(prefix, status, token(t.Source), token(t.Cluster), token(t.Key))
	case brokers.ToAllClusters:
		s = join(prefix, allClusters, token(t.Source))
	case brokers.ToAllSources:
		s = join(prefix, allSources, token(t.Cluster))
	}
	if len(s) > maxSubject {
		return "", fmt.Errorf("%w: its subject would have %d bytes, at most %d can be sent", brokers.ErrInvalidTopic, len(s), maxSubject)
	}
	return s, nil
}

// topic reads what subject wrote.
func topic(prefix, s string) (brokers.Topic, error) {
	rest, ok := strings.CutPrefix(s, prefix+".")
	if !ok {
		return brokers.Topic{}, errSubject
	}
	tokens := strings.Split(rest, ".")
	names := make([]string, 0, 3)
	for _, tok := range tokens[1:] {
		name, err := fromToken(tok)
		if err != nil {
			return brokers.Topic{}, err
		}
		names = append(names, name)
	}
	var t brokers.Topic
	switch {
	case tokens[0] == spec && len(names) == 3:
		t = brokers.Topic{Lane: brokers.ToCluster, Cluster: names[0], Source: names[1], Key: names[2]}
	case tokens[0] == status && len(names) == 3:
		t = brokers.Topic{Lane: brokers.ToSource, Source: names[0], Cluster: names[1], Key: names[2]}
	case tokens[0] == allClusters && len(names) == 1:
		t = brokers.Topic{Lane: brokers.ToAllClusters, Source: names[0]}
	case tokens[0] == allSources && len(names) == 1:
		t = brokers.Topic{Lane: brokers.ToAllSources, Cluster: names[0]}
	default:
		return brokers.Topic{}, errSubject
	}
	return t, t.Validate()
}

// pattern spells a valid filter as a subject with wildcards.
func pattern(prefix string, f brokers.Filter) string {
	name := func(s string) string {
		if s == brokers.Any {
			return "*"
		}
		return token(s)
	}
	// Wildcards at the end are left to the > behind them, but for the first:
	// the stream's own marker must not match.
	names := func(first, second string) string {
		if second == brokers.Any {
			return name(first)
		}
		return join(name(first), name(second))
	}
	switch f.Lane {
	case brokers.ToCluster:
		return join(prefix, spec, names(f.Cluster, f.Source), ">")
	case brokers.ToSource:
		return join(prefix, status, names(f.Source, f.Cluster), ">")
	case brokers.ToAllClusters:
		return join(prefix, allClusters, name(f.Source))
	default:
		return join(prefix, allSources, name(f.Cluster))
	}
}

// cover is the narrowest filter that matches all that filters of one lane do.
// A consumer has one subject, never a list: only then the subject is part of
// the request that makes the consumer and can be authorised, and the server
// finds what matches by a prefix. The filters themselves are applied here.
func cover(filters []brokers.Filter) brokers.Filter {
	c := filters[0]
	for _, f := range filters[1:] {
		if f.Source != c.Source {
			c.Source = brokers.Any
		}
		if f.Cluster != c.Cluster {
			c.Cluster = brokers.Any
		}
	}
	return c
}

func join(tokens ...string) string { return strings.Join(tokens, ".") }
