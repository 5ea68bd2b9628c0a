package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// plainFor is how long a cluster whose compressed report could not be read is
// not told that this source reads them.
const plainFor = time.Hour

// publishBundle sends the event of a work, compressed if its cluster takes that
// and it is worth it, or if it is too large for the broker otherwise.
func (d *Dispatcher) publishBundle(ctx context.Context, to brokers.Topic, e event.Event) error {
	capable := d.takesCompressed(to.Cluster)
	small, worth := e, false
	if capable {
		small, worth = d.compressor.Compress(e)
	}
	send := func(e event.Event) error { return d.publish(ctx, to, typeBundle, e) }
	if worth {
		err := send(small)
		d.metrics.compressed(directionSent, e, small, err)
		return d.explain(e, small, capable, err)
	}
	err := send(e)
	if errors.Is(err, brokers.ErrTooLarge) && small.Size() < e.Size() {
		err = send(small)
		d.metrics.compressed(directionSent, e, small, err)
	}
	return d.explain(e, small, capable, err)
}

// explain says of a work that is too large for the broker how large it is in
// either form. The broker's own words have the limit.
func (d *Dispatcher) explain(e, small event.Event, capable bool, err error) error {
	switch {
	case !errors.Is(err, brokers.ErrTooLarge):
		return err
	case capable:
		return fmt.Errorf("its manifests and options take %d bytes, %d compressed: %w", len(e.Data), len(small.Data), err)
	}
	small, _ = d.compressor.Compress(e)
	return fmt.Errorf("its manifests and options take %d bytes (the cluster's agent takes no compressed ones, which would have %d; "+
		"an agent of a version that knows %s does): %w", len(e.Data), len(small.Data), codec.CapZstd, err)
}

// takesCompressed says whether the agent of a cluster last named the capability.
func (d *Dispatcher) takesCompressed(cluster string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers[cluster].takesCompressed()
}

func (p *peer) takesCompressed() bool {
	return p != nil && p.capable && slices.Contains(p.capabilities, codec.CapZstd)
}

// outside is a compressed report as its attributes alone describe it, in a form
// that can be decoded. So a report is held against its address before anything is
// decompressed, and nothing that waits is.
func outside(e event.Event) event.Event {
	e.Data = nil
	e = e.Clone()
	e.Data = []byte(`{}`)
	e.Set(event.DataContentType, event.JSON)
	return e
}

// open returns the report that waits, decompressed if it came compressed. With
// the error comes the label of its kind.
func (d *Dispatcher) open(p *pendingReport) (codec.Report, string, error) {
	if !codec.Compressed(p.newest.Event) {
		return p.report, resultOK, nil
	}
	plain, err := d.compressor.Decompress(p.newest.Event)
	if err != nil {
		d.distrust(p.newest.From.Cluster)
		return codec.Report{}, undecodable(err), err
	}
	if !p.counted {
		p.counted = true
		d.metrics.compressed(directionReceived, plain, p.newest.Event, nil)
	}
	_, m, err := codec.Decode(plain)
	if err != nil {
		return codec.Report{}, undecodable(err), err
	}
	r := p.report
	if inside, ok := m.(codec.Report); ok { // It is one by its attributes.
		r = inside
	}
	return r, resultOK, nil
}

// distrust has a cluster hear that this source reads no compressed reports: it
// could not read one. The cluster's digest then says which reports are missing.
func (d *Dispatcher) distrust(cluster string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, now := d.peerLocked(cluster), time.Now()
	if now.Before(p.plainUntil) && !p.helloAt.Before(d.askedAll) {
		return // It was told, or is about to be, and has heard nothing else since.
	}
	p.plainUntil = now.Add(plainFor)
	d.expectLocked(cluster, 0)
}

// abilities is what this end can do beyond OCM's protocol, as far as a cluster
// is told of it.
func (d *Dispatcher) abilities(cluster string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[cluster]; p != nil && time.Now().Before(p.plainUntil) {
		return []string{codec.CapDigest}
	}
	return capabilities
}

// reviveLocked has works tried again that were too large for a cluster whose
// agent has come to take compressed ones.
func (d *Dispatcher) reviveLocked(cluster string) {
	for k, r := range d.refused {
		if k.Cluster == cluster && r.tooLarge {
			delete(d.refused, k)
			d.works.Add(cluster, k)
		}
	}
}
