package codec_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// goodEvent is an event of each golden file, to be broken by a test.
func goodEvent(t testing.TB, file string) event.Event {
	t.Helper()
	return readGolden(t, "testdata/"+file+".json").event(t)
}

const typePrefix = "io.open-cluster-management.works.v1alpha1.manifestbundles."

func TestDecodeRefuses(t *testing.T) {
	set := func(name, value string) func(*event.Event) {
		return func(e *event.Event) { e.Set(name, value) }
	}
	unset := func(name string) func(*event.Event) {
		return func(e *event.Event) { e.Unset(name) }
	}
	body := func(text string) func(*event.Event) {
		return func(e *event.Event) { e.Data = []byte(text) }
	}
	deep := strings.Repeat(`{"a":`, codec.MaxDepth) + "1" + strings.Repeat("}", codec.MaxDepth)
	for _, tc := range []struct {
		reason string
		file   string
		spoil  func(*event.Event)
		want   error
	}{
		{"the heartbeat of a gRPC server", "bundle", set(event.Type, "io.open-cluster-management.cloudevents.heartbeat"), codec.ErrUnknownType},
		{"another data type", "bundle", set(event.Type, "addon.open-cluster-management.io.v1beta1.managedclusteraddons.spec.update_request"), codec.ErrUnknownType},
		{"the data type alone", "bundle", set(event.Type, codec.DataType), codec.ErrUnknownType},
		{"an unknown subresource", "bundle", set(event.Type, typePrefix+"scale.update_request"), codec.ErrUnknownType},
		{"an unknown action", "bundle", set(event.Type, typePrefix+"spec.watch_request"), codec.ErrUnknownType},
		{"an action of the other subresource", "report", set(event.Type, typePrefix+"status.delete_request"), codec.ErrUnknownType},
		{"a further segment", "bundle", set(event.Type, typePrefix+"spec.update_request.x"), codec.ErrUnknownType},
		{"no type at all", "bundle", unset(event.Type), codec.ErrUnknownType},

		{"no CloudEvent: it has no ID", "bundle", unset(event.ID), codec.ErrMalformed},
		{"no CloudEvent: it says no version", "bundle", unset(event.SpecVersion), codec.ErrMalformed},
		{"another version of CloudEvents", "bundle", set(event.SpecVersion, "0.3"), codec.ErrUnsupportedVersion},
		{"another version of OCM's data type", "bundle", set(event.Type, "io.open-cluster-management.works.v1beta1.manifestbundles.spec.update_request"), codec.ErrUnsupportedVersion},
		{"another data type of OCM's", "bundle", set(event.Type, "io.open-cluster-management.works.v1beta1.manifests.spec.update_request"), codec.ErrUnknownType},
		{"a version that is none", "bundle", set(event.Type, "io.open-cluster-management.works.latest.manifestbundles.spec.update_request"), codec.ErrUnknownType},
		{"no source", "bundle", unset(event.Source), codec.ErrMalformed},
		{"no resource ID", "bundle", unset("resourceid"), codec.ErrMalformed},
		{"a line break in the ID, which a header cannot carry", "bundle", set("resourceid", "a\nb"), codec.ErrMalformed},
		{"an ID that is not UTF-8", "bundle", set("resourceid", "\xff"), codec.ErrMalformed},
		{"an ID that no key can hold", "bundle", set("resourceid", strings.Repeat("a", codec.MaxID+1)), codec.ErrMalformed},
		{"a source's name that no object can have", "bundle", set(event.Source, strings.Repeat("a", codec.MaxName+1)), codec.ErrMalformed},
		{"a cluster's name that no object can have", "report", set("clustername", strings.Repeat("a", codec.MaxName+1)), codec.ErrMalformed},
		{"a question to a source that cannot be", "spec-resync", set("originalsource", strings.Repeat("a", codec.MaxName+1)), codec.ErrMalformed},
		{"a question to a cluster that cannot be", "status-resync", set("clustername", strings.Repeat("a", codec.MaxName+1)), codec.ErrMalformed},
		{"an ID in the list that no key can hold", "status-resync", body(`{"statusHashes":[{"resourceID":"` + strings.Repeat("a", codec.MaxID+1) + `"}]}`), codec.ErrMalformed},
		{"no cluster", "bundle", unset("clustername"), codec.ErrMalformed},
		{"no version", "bundle", unset("resourceversion"), codec.ErrMalformed},
		{"an empty version", "bundle", set("resourceversion", ""), codec.ErrMalformed},
		{"a version with a fraction", "bundle", set("resourceversion", "7.5"), codec.ErrMalformed},
		{"a version that ends in its point", "bundle", set("resourceversion", "7."), codec.ErrMalformed},
		{"a version over 32 bits", "bundle", set("resourceversion", "2147483648"), codec.ErrMalformed},
		{"a negative version", "bundle", set("resourceversion", "-1"), codec.ErrMalformed},
		{"a version in words", "bundle", set("resourceversion", "three"), codec.ErrMalformed},
		{"a deletion timestamp that is no time", "bundle-deleted", set("deletiontimestamp", "now"), codec.ErrMalformed},
		{"an empty deletion timestamp: present, so a deletion, but when", "bundle-deleted", set("deletiontimestamp", ""), codec.ErrMalformed},
		{"the zero time would read as no deletion", "bundle-deleted", set("deletiontimestamp", "0001-01-01T00:00:00Z"), codec.ErrMalformed},
		{"a year that cannot be written again", "bundle-deleted", set("deletiontimestamp", "0000-01-01T00:00:00+01:00"), codec.ErrMalformed},
		{"neither manifests nor a deletion", "bundle", body(""), codec.ErrMalformed},
		{"a body that is an array", "bundle", body("[]"), codec.ErrMalformed},
		{"a body that is null", "bundle", body("null"), codec.ErrMalformed},
		{"a body cut short", "bundle", body(`{"manifests":[`), codec.ErrMalformed},
		{"two bodies", "bundle", body(`{}{}`), codec.ErrMalformed},
		{"a body that is not UTF-8", "bundle", body("{\"a\":\"\xff\"}"), codec.ErrMalformed},
		{"a body that would exhaust a recursive reader", "bundle", body(`{"a":` + deep + "}"), codec.ErrMalformed},
		{"a body over the limit", "bundle", body(`{"a":"` + strings.Repeat("a", codec.MaxPayload) + `"}`), codec.ErrMalformed},
		{"a body of another format", "bundle", set(event.DataContentType, "application/cbor"), codec.ErrMalformed},
		{"metadata that is no object", "bundle", set("metadata", `"web-tier"`), codec.ErrMalformed},
		{"metadata cut short, as an MQTT client cuts it", "bundle", set("metadata", `{"name":"web-ti`), codec.ErrMalformed},
		{"metadata longer than a user property", "bundle", set("metadata", `{"name":"`+strings.Repeat("a", 65535)+`"}`), codec.ErrMalformed},
		{"malformed tracing", "bundle", set("logtracing", "{"), codec.ErrMalformed},
		{"tracing with a number", "bundle", set("logtracing", `{"a":1}`), codec.ErrMalformed},

		{"a report without sequence", "report", unset("sequenceid"), codec.ErrMalformed},
		{"a report with an empty sequence", "report", set("sequenceid", ""), codec.ErrMalformed},
		{"a report for nobody", "report", set("originalsource", ""), codec.ErrMalformed},
		{"a report without status", "report", body(""), codec.ErrMalformed},
		{"a hash in upper case is not what hashing gives", "report", set("statushash", strings.Repeat("A", 64)), codec.ErrMalformed},
		{"a hash cut short", "report", set("statushash", "abc"), codec.ErrMalformed},
		{"a report on no version", "report", unset("resourceversion"), codec.ErrMalformed},

		{"a question without its list", "spec-resync", body(""), codec.ErrMalformed},
		{"a list that is none", "spec-resync", body(`{"resourceVersions":{}}`), codec.ErrMalformed},
		{"a work without ID", "spec-resync", body(`{"resourceVersions":[{"resourceVersion":1}]}`), codec.ErrMalformed},
		{"a version as a string", "spec-resync", body(`{"resourceVersions":[{"resourceID":"a","resourceVersion":"1"}]}`), codec.ErrMalformed},
		{"a negative version in the list", "spec-resync", body(`{"resourceVersions":[{"resourceID":"a","resourceVersion":-1}]}`), codec.ErrMalformed},
		{"more works than anybody has", "spec-resync", body(`{"resourceVersions":[` + strings.Repeat("0,", 2*codec.MaxListed) + "0]}"), codec.ErrMalformed},
		{"a question of no cluster's agent", "spec-resync", unset("clustername"), codec.ErrMalformed},
		{"a hash that is an essay", "status-resync", body(`{"statusHashes":[{"resourceID":"a","statusHash":"` + strings.Repeat("a", 129) + `"}]}`), codec.ErrMalformed},
	} {
		e := goodEvent(t, tc.file)
		tc.spoil(&e)
		_, m, err := codec.Decode(e)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.reason, err, tc.want)
		}
		if m != nil {
			t.Errorf("%s: a message beside the error: %v", tc.reason, m)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("%s: an error of %d bytes", tc.reason, len(err.Error()))
		}
	}
}

func TestDecodeTakes(t *testing.T) {
	for _, tc := range []struct {
		reason, file string
		change       func(*event.Event)
		holds        func(codec.Message) bool
	}{
		{
			"a peer that holds integers as floating-point numbers", "bundle",
			func(e *event.Event) { e.Set("resourceversion", "7.0") },
			func(m codec.Message) bool { return m.(codec.Bundle).Generation == 7 },
		},
		{
			"an unversioned work", "bundle",
			func(e *event.Event) { e.Set("resourceversion", "0") },
			func(m codec.Message) bool { return m.(codec.Bundle).Generation == 0 },
		},
		{
			"metadata as long as a user property may be", "bundle",
			func(e *event.Event) { e.Set("metadata", `{"name":"`+strings.Repeat("a", 65535-11)+`"}`) },
			func(m codec.Message) bool { return len(m.(codec.Bundle).Metadata) == 65535 },
		},
		{
			"a work without metadata", "bundle",
			func(e *event.Event) { e.Unset("metadata") },
			func(m codec.Message) bool { return m.(codec.Bundle).Metadata == nil },
		},
		{
			"a body without a content type is JSON", "bundle",
			func(e *event.Event) { e.Unset(event.DataContentType) },
			func(m codec.Message) bool { return len(m.(codec.Bundle).Payload) > 0 },
		},
		{
			"a content type with parameters", "bundle",
			func(e *event.Event) { e.Set(event.DataContentType, "Application/JSON; charset=utf-8") },
			func(m codec.Message) bool { return len(m.(codec.Bundle).Payload) > 0 },
		},
		{
			"a peer that does not trace", "bundle",
			func(e *event.Event) { e.Unset("logtracing") },
			func(m codec.Message) bool { return m.(codec.Bundle).Trace == "" },
		},
		{
			"a deletion is known by its timestamp, whatever the action", "bundle-deleted",
			func(e *event.Event) { e.Set(event.Type, typePrefix+"spec.update_request") },
			func(m codec.Message) bool { return m.(codec.Bundle).Deleting() },
		},
		{
			"a deletion that brings its object along", "bundle-deleted",
			func(e *event.Event) { e.Data = []byte(`{"manifests":[]}`) },
			func(m codec.Message) bool { return m.(codec.Bundle).Deleting() },
		},
		{
			"a deletion from another time zone", "bundle-deleted",
			func(e *event.Event) { e.Set("deletiontimestamp", "2026-02-03T05:09:30+01:00") },
			func(m codec.Message) bool {
				return m.(codec.Bundle).DeletedAt.String() == "2026-02-03 04:09:30 +0000 UTC"
			},
		},
		{
			"an attribute of a later protocol", "report",
			func(e *event.Event) { e.Set("digest", "x") },
			func(m codec.Message) bool { return m.(codec.Report).Agent == agent },
		},
		{
			"an agent that does not hash", "report",
			func(e *event.Event) { e.Unset("statushash") },
			func(m codec.Message) bool { return m.(codec.Report).Hash == "" },
		},
		{
			"a list that is null is empty", "spec-resync",
			func(e *event.Event) { e.Data = []byte(`{"resourceVersions":null}`) },
			func(m codec.Message) bool { return len(m.(codec.SpecResync).Versions) == 0 },
		},
		{
			"a question to all clusters that leaves their name out", "status-resync",
			func(e *event.Event) { e.Unset("clustername") },
			func(m codec.Message) bool { return m.(codec.StatusResync).Cluster == "" },
		},
	} {
		e := goodEvent(t, tc.file)
		tc.change(&e)
		_, m, err := codec.Decode(e)
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		if !tc.holds(m) {
			t.Errorf("%s: read as %+v", tc.reason, m)
		}
	}
}
