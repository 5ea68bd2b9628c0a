package nats

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/brokers"
)

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		tok := token(s)
		if tok == "" || strings.ContainsAny(tok, ".*> \t\r\n/\\\"") {
			t.Fatalf("token(%q) = %q, which is not one token", s, tok)
		}
		if got, err := fromToken(tok); err != nil || got != s {
			t.Fatalf("fromToken(token(%q)) = %q, %v", s, got, err)
		}
	})
}

func TestTokensHaveOneSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tok := rapid.StringOf(rapid.SampledFrom([]rune("%2eE0aA.*> -"))).Draw(t, "token")
		if s, err := fromToken(tok); err == nil && token(s) != tok {
			t.Fatalf("fromToken(%q) = %q, which is spelled %q", tok, s, token(s))
		}
	})
}

func TestSubjects(t *testing.T) {
	for _, test := range []struct {
		reason string
		topic  brokers.Topic
		want   string
	}{
		{"the cluster comes first, so that an agent's filter is a prefix", brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1", Key: "k"}, "fleetcast.spec.c1.hub.k"},
		{"the source comes first, for the same reason", brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"}, "fleetcast.status.hub.c1.k"},
		{"an empty key is a key", brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1"}, "fleetcast.spec.c1.hub.%"},
		{"dots do not end a name", brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub.eu"}, "fleetcast.all-clusters.hub%2Eeu"},
		{"other scripts", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "ü"}, "fleetcast.all-sources.%C3%BC"},
	} {
		got, err := subject("fleetcast", test.topic)
		if err != nil || got != test.want {
			t.Errorf("%s: subject is %q, %v, want %q", test.reason, got, err, test.want)
		}
		back, err := topic("fleetcast", got)
		if diff := cmp.Diff(test.topic, back); err != nil || diff != "" {
			t.Errorf("%s: parsed back with %v (-want +got):\n%s", test.reason, err, diff)
		}
	}
}

func TestSubjectTooLong(t *testing.T) {
	_, err := subject("fleetcast", brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: "c", Key: strings.Repeat("x", maxSubject)})
	if !errors.Is(err, brokers.ErrInvalidTopic) {
		t.Errorf("got %v, want ErrInvalidTopic", err)
	}
}

func TestForeignSubjects(t *testing.T) {
	for subject, reason := range map[string]string{
		"other.spec.c1.hub.k":         "another prefix",
		"fleetcast2.spec.c1.hub.k":    "a prefix that begins alike",
		"fleetcast.spec.stream":       "the marker of a stream",
		"fleetcast.spec.c1.hub":       "a token is missing",
		"fleetcast.spec.c1.hub.k.l":   "a token too many",
		"fleetcast.spec.c1..k":        "an empty token",
		"fleetcast.spec.%2a.hub.k":    "a wildcard, in the wrong case too",
		"fleetcast.spec.%2A.hub.k":    "a wildcard as a name",
		"fleetcast.spec.%.hub.k":      "an empty cluster",
		"fleetcast.spec.c%31.hub.k":   "an escape that is not needed",
		"fleetcast.spec.c1.hub.%4":    "half an escape",
		"fleetcast.spec.c1.hub.%zz":   "no escape",
		"fleetcast.all-clusters.a.b":  "a broadcast with a key",
		"fleetcast.all-clusters":      "a broadcast of nobody",
		"fleetcast.nonsense.c1.hub.k": "no lane",
		"fleetcast":                   "nothing but the prefix",
	} {
		if got, err := topic("fleetcast", subject); err == nil {
			t.Errorf("%s: %q was read as %+v", reason, subject, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	toCluster := func(source, cluster string) brokers.Filter {
		return brokers.Filter{Lane: brokers.ToCluster, Source: source, Cluster: cluster}
	}
	toSource := func(source, cluster string) brokers.Filter {
		return brokers.Filter{Lane: brokers.ToSource, Source: source, Cluster: cluster}
	}
	for _, test := range []struct {
		reason  string
		filters []brokers.Filter
		want    string
	}{
		{"an agent's works", []brokers.Filter{toCluster("*", "c1")}, "p.spec.c1.>"},
		{"one source's works", []brokers.Filter{toCluster("hub", "c1")}, "p.spec.c1.hub.>"},
		{"several sources have the cluster in common", []brokers.Filter{toCluster("a", "c1"), toCluster("b", "c1")}, "p.spec.c1.>"},
		{"a source's reports", []brokers.Filter{toSource("hub", "*")}, "p.status.hub.>"},
		{"one cluster's reports", []brokers.Filter{toSource("hub", "c1")}, "p.status.hub.c1.>"},
		{"one cluster's reports to anybody", []brokers.Filter{toSource("*", "c1")}, "p.status.*.c1.>"},
		{"nothing in common", []brokers.Filter{toSource("a", "c1"), toSource("b", "c2")}, "p.status.*.>"},
		{"broadcasts", []brokers.Filter{{Lane: brokers.ToAllClusters, Source: "a"}, {Lane: brokers.ToAllClusters, Source: "b"}}, "p.all-clusters.*"},
	} {
		if got := pattern("p", cover(test.filters)); got != test.want {
			t.Errorf("%s: pattern is %q, want %q", test.reason, got, test.want)
		}
	}
}

func FuzzTopic(f *testing.F) {
	f.Add("fleetcast.spec.c1.hub.k")
	f.Add("fleetcast.status.hub.c1.%")
	f.Add("fleetcast.all-clusters.%2E")
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := topic("fleetcast", s)
		if err != nil || len(s) > maxSubject {
			return
		}
		if again, err := subject("fleetcast", parsed); err != nil || again != s {
			t.Errorf("%q was read as %+v, which is spelled %q, %v", s, parsed, again, err)
		}
	})
}
