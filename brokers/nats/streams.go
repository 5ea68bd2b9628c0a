package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	requestTimeout = 10 * time.Second
	// duplicateWindow is longer than a client waits for a confirmation, so that
	// a repeated publish is recognised, and short, as the server keeps the IDs
	// in memory.
	duplicateWindow = time.Minute
)

// storedLanes are those with a stream behind them.
var storedLanes = []brokers.Lane{brokers.ToCluster, brokers.ToSource}

// errNoStream is wrapped when a stream is not there.
var errNoStream = errors.New("stream does not exist")

// prepare makes a link on nc: a source creates and adapts the streams, an
// agent finds out whether they are there.
func (t *transport) prepare(nc *natsgo.Conn, js jetstream.JetStream) (*link, error) {
	ctx, cancel := context.WithTimeout(t.ctx, 2*requestTimeout)
	defer cancel()
	l := &link{nc: nc, js: js, since: time.Now(), maxMessage: make(map[string]int64), identities: make(map[brokers.Lane]string), doubts: make(map[brokers.Lane]bool)}
	for _, lane := range storedLanes {
		name := t.settings.stream(lane)
		if t.config.Role == brokers.RoleAgent {
			if _, err := t.identify(ctx, nc, lane); err != nil {
				return nil, fmt.Errorf("find stream %s, which a source creates: %w", name, err)
			}
			continue
		}
		info, err := t.ensureStream(ctx, js, lane)
		if err != nil {
			return nil, fmt.Errorf("prepare stream %s: %w", name, err)
		}
		l.maxMessage[name] = int64(info.Config.MaxMsgSize)
		if l.identities[lane], err = t.mark(ctx, nc, js, lane, info.Config); err != nil {
			return nil, fmt.Errorf("mark stream %s: %w", name, err)
		}
	}
	l.ctx, l.end = context.WithCancelCause(t.ctx)
	return l, nil
}

// streamConfig is how the stream behind a lane is made. It keeps the newest
// event of each subject. When it is full it refuses new ones instead of
// dropping what some cluster has not read yet.
func (s settings) streamConfig(l brokers.Lane) jetstream.StreamConfig {
	second, age := spec, time.Duration(0)
	if l == brokers.ToSource {
		// A report can be asked for again at any time.
		second, age = status, max(s.keepTombstones(), duplicateWindow)
	}
	return jetstream.StreamConfig{
		Name:              s.stream(l),
		Subjects:          []string{join(s.prefix, second, ">")},
		Retention:         jetstream.LimitsPolicy,
		Storage:           s.storage,
		Replicas:          max(s.replicas, 1),
		MaxMsgsPerSubject: 1,
		MaxBytes:          s.maxBytes,
		MaxAge:            age,
		AllowMsgTTL:       true,
		Discard:           jetstream.DiscardNew,
		Duplicates:        duplicateWindow,
		AllowDirect:       true,
		DenyDelete:        true,
	}
}

// ensureStream creates the stream behind a lane, or adapts the one it finds.
func (t *transport) ensureStream(ctx context.Context, js jetstream.JetStream, lane brokers.Lane) (*jetstream.StreamInfo, error) {
	want := t.settings.streamConfig(lane)
	found, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		created, err := js.CreateStream(ctx, want)
		switch {
		case err == nil:
			t.log.Info("created stream", "stream", want.Name, "storage", want.Storage.String(), "replicas", want.Replicas)
			return created.CachedInfo(), nil
		case !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
			return nil, err
		}
		// Another source was faster.
		if found, err = js.Stream(ctx, want.Name); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	info := found.CachedInfo()
	adapted, changes, err := t.settings.adapt(info.Config, want)
	if err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		if info, err = t.updateStream(ctx, js, adapted, changes); err != nil {
			return nil, err
		}
	}
	adapted, changes = t.settings.forget(info.Config, want)
	if len(changes) == 0 {
		return info, nil
	}
	// Works are carried all the same by a stream that cannot be changed so.
	updated, err := t.updateStream(ctx, js, adapted, changes)
	switch {
	case err == nil && updated.Config.AllowMsgTTL:
		return updated, nil
	case err == nil:
		err = errors.New("the server does not know allow_msg_ttl")
		info = updated
	}
	if t.once("forget " + want.Name) {
		t.log.Warn("stream keeps the deletions of all works that ever were: run NATS server 2.11 or later on all nodes and "+
			"set allow_msg_ttl on it, or purge it now and then", "stream", want.Name, "err", err)
	}
	return info, nil
}

func (t *transport) updateStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, changes []string) (*jetstream.StreamInfo, error) {
	ctx, done := t.api(ctx, join("$JS.API.STREAM.UPDATE", cfg.Name))
	defer done()
	updated, err := js.UpdateStream(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("change its %s: %w", strings.Join(changes, ", "), cause(ctx, err))
	}
	t.log.Info("changed stream", "stream", cfg.Name, "changes", changes)
	return updated.CachedInfo(), nil
}

// adapt returns have with what this driver depends on as in want, and the
// names of what is different. All else is left as an operator has it.
func (s settings) adapt(have, want jetstream.StreamConfig) (jetstream.StreamConfig, []string, error) {
	switch {
	case have.Retention != want.Retention:
		return have, nil, fmt.Errorf("its retention is %s and cannot be changed: delete it or use another prefix", have.Retention)
	case have.Storage != want.Storage:
		return have, nil, fmt.Errorf("its storage is %s and cannot be changed: delete it, or set storage=%[1]s in the broker URL", strings.ToLower(have.Storage.String()))
	case have.Mirror != nil:
		return have, nil, errors.New("it is a mirror: use another prefix")
	}
	var changes []string
	change := func(name string, differs bool, set func()) {
		if differs {
			changes = append(changes, name)
			set()
		}
	}
	change("subjects", !slices.Equal(have.Subjects, want.Subjects), func() { have.Subjects = want.Subjects })
	change("max_msgs_per_subject", have.MaxMsgsPerSubject != want.MaxMsgsPerSubject, func() { have.MaxMsgsPerSubject = want.MaxMsgsPerSubject })
	change("discard", have.Discard != want.Discard || have.DiscardNewPerSubject, func() {
		have.Discard, have.DiscardNewPerSubject = want.Discard, false
	})
	change("duplicate_window", have.Duplicates != want.Duplicates, func() { have.Duplicates = want.Duplicates })
	change("allow_direct", !have.AllowDirect, func() { have.AllowDirect = true })
	change("max_bytes", s.maxBytes > 0 && have.MaxBytes != s.maxBytes, func() { have.MaxBytes = s.maxBytes })
	change("replicas", s.replicas > 0 && have.Replicas != s.replicas, func() { have.Replicas = s.replicas })
	return have, changes, nil
}

// mark puts the marker into a stream that has none, and returns its identity. A
// marker that the stream's MaxAge would remove is written again.
func (t *transport) mark(ctx context.Context, nc *natsgo.Conn, js jetstream.JetStream, lane brokers.Lane, cfg jetstream.StreamConfig) (string, error) {
	subject := t.settings.marker(lane)
	marker, err := t.last(ctx, nc, lane, subject)
	if err != nil {
		return "", err
	}
	m, before := &natsgo.Msg{Subject: subject, Header: natsgo.Header{}}, uint64(0)
	if cfg.AllowMsgTTL {
		m.Header.Set(jetstream.MsgTTLHeader, neverExpires)
	}
	if marker != nil {
		if cfg.MaxAge == 0 || !cfg.AllowMsgTTL || marker.Get(jetstream.MsgTTLHeader) != "" {
			return t.identify(ctx, nc, lane)
		}
		if before, err = strconv.ParseUint(marker.Get(sequenceHeader), 10, 64); err != nil {
			return "", fmt.Errorf("read sequence of marker: %w", err)
		}
	}
	guarded, done := t.refusals.guard(ctx, subject)
	defer done()
	_, err = js.PublishMsg(guarded, m, jetstream.WithExpectLastSequencePerSubject(before))
	var api *jetstream.APIError
	faster := errors.As(err, &api) && // Another source was.
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
	if err != nil && !faster {
		return "", cause(guarded, err)
	}
	return t.identify(ctx, nc, lane)
}

// check restarts a source's link whose streams are not those that it found. A
// source that has nothing to publish would not notice, and agents can only
// wait. A replica that lags behind may answer once with what was before.
func (t *transport) check(l *link) {
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	for lane, before := range l.identities {
		now, err := t.identify(ctx, l.nc, lane)
		switch {
		case errors.Is(err, errNoStream):
			t.restart(l, err)
		case err != nil:
		case now == before:
			delete(l.doubts, lane)
		case !l.doubts[lane]:
			l.doubts[lane] = true
		default:
			t.restart(l, fmt.Errorf("stream %s was replaced", t.settings.stream(lane)))
		}
	}
}

// identify returns what tells this life of the stream behind a lane from
// another: the time of its marker. "" is a stream without one, and
// errNoStream is wrapped where there is no stream.
//
// The creation time of a stream would tell the same, but whoever may read it
// may also list all subjects of the stream, and so all clusters and works.
func (t *transport) identify(ctx context.Context, nc *natsgo.Conn, lane brokers.Lane) (string, error) {
	last, err := t.last(ctx, nc, lane, t.settings.marker(lane))
	if err != nil || last == nil {
		return "", err
	}
	written, err := time.Parse(time.RFC3339Nano, last.Get(timeHeader))
	if err != nil {
		return "", fmt.Errorf("read marker of stream %s: %w", t.settings.stream(lane), err)
	}
	return strconv.FormatInt(written.UnixNano(), 36), nil
}

const (
	sequenceHeader = "Nats-Sequence"
	timeHeader     = "Nats-Time-Stamp"
)

// last returns the headers of the newest message on a subject or pattern of
// the stream behind a lane, nil if there is none.
func (t *transport) last(ctx context.Context, nc *natsgo.Conn, lane brokers.Lane, pattern string) (natsgo.Header, error) {
	stream := t.settings.stream(lane)
	subject := join("$JS.API.DIRECT.GET", stream, pattern)
	ctx, done := t.refusals.guard(ctx, subject)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, subject, nil)
	switch {
	case errors.Is(err, natsgo.ErrNoResponders):
		return nil, fmt.Errorf("%w: %s", errNoStream, stream)
	case err != nil:
		return nil, fmt.Errorf("read stream %s: %w", stream, cause(ctx, err))
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return m.Header, nil
	case "404":
		return nil, nil
	default:
		return nil, fmt.Errorf("read stream %s: %s %s", stream, status, m.Header.Get("Description"))
	}
}

// cause is err, or why ctx ended if that is what err says.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
