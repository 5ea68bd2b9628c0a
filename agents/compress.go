package agents

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

// plainFor is how long a source whose compressed work could not be read is not
// told that this agent reads them.
const plainFor = time.Hour

// maxUnpacked bounds the bytes of works that were decompressed and are not in the
// store yet, at four of the largest. The driver bounds events, of which each may
// stand for 64 times its size.
const maxUnpacked = 4 * codec.MaxPayload

// lendMemory waits until an event may be decompressed, which it is for as long as
// it is not settled. It returns false if ctx ends before.
func (a *Agent) lendMemory(ctx context.Context, d brokers.Delivery) (brokers.Delivery, bool) {
	const most = 64 // Bytes that one compressed byte may stand for.
	size := int64(min(codec.MaxPayload, most*len(d.Event.Data)))
	if a.unpacked.Acquire(ctx, size) != nil {
		return d, false // It stays with the broker.
	}
	return brokers.NewDelivery(d.From, d.Event, d.Position, func(err error) {
		a.unpacked.Release(size)
		d.Done(err)
	}), true
}

// unpack returns an event as it was before it was compressed, once it is certain
// that its source sent it to this cluster. If it says false, the event is
// settled.
func (a *Agent) unpack(d brokers.Delivery, at *step) (event.Event, bool) {
	switch source, cluster := codec.Between(d.Event); {
	case source != d.From.Source:
		a.drop(d, at, "foreign_source", fmt.Errorf("it says it is from source %q", source))
		return event.Event{}, false
	case cluster != a.cluster:
		a.drop(d, at, "foreign_cluster", fmt.Errorf("it is for cluster %q", cluster))
		return event.Event{}, false
	}
	plain, err := a.compressor.Decompress(d.Event)
	if err != nil {
		a.distrust(d.From.Source)
		a.refuse(d, at, err)
		return event.Event{}, false
	}
	countCompressed(directionReceived, plain, d.Event)
	return plain, true
}

// distrust has a source hear that this agent reads no compressed works: it could
// not read one. The digest that says so also says which works are missing.
func (a *Agent) distrust(source string) {
	a.mu.Lock()
	a.plainUntil[source] = a.o.Now().Add(plainFor)
	a.mu.Unlock()
	a.dialogues[source].correct(time.Now())
}

// capabilities are what this agent can do beyond OCM's protocol, as far as a
// source is told of it.
func (a *Agent) capabilities(source string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.o.Now().Before(a.plainUntil[source]) {
		return []string{codec.CapDigest}
	}
	return []string{codec.CapDigest, codec.CapZstd}
}

// compresses says whether a source takes compressed reports: it last said so,
// and answers. One that does not may have been replaced by one of OCM's.
func (a *Agent) compresses(source string) bool {
	return slices.Contains(a.state.peer(source).Capabilities, codec.CapZstd) && a.dialogues[source].answers()
}

// publishReport sends a report, compressed if its source takes that and it is
// worth it, or if it is too large for the broker otherwise.
func (a *Agent) publishReport(ctx context.Context, to brokers.Topic, r codec.Report) error {
	e, err := r.Encode(codec.Update)
	if err != nil {
		return fmt.Errorf("encode for %s: %w", to, err)
	}
	small, worth := e, false
	if a.compresses(to.Source) {
		small, worth = a.compressor.Compress(e)
	}
	if !worth {
		err := a.send(ctx, to, kindReport, e)
		if !errors.Is(err, brokers.ErrTooLarge) || small.Size() >= e.Size() {
			return err
		}
	}
	// Before it is sent: the source may confirm it before the broker does.
	a.noteCompressed(Key{to.Source, r.ID}, r.Sequence)
	if err := a.send(ctx, to, kindReport, small); err != nil {
		return err
	}
	countCompressed(directionSent, e, small)
	a.dialogues[to.Source].change(time.Now()) // A digest finds out whether it was read.
	return nil
}

// noteCompressed remembers a report that went out compressed, until its source
// confirms what it has.
func (a *Agent) noteCompressed(k Key, s codec.Sequence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.compressed[k] = s
}

// confirmCompressed forgets the reports that a source has.
func (a *Agent) confirmCompressed(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.compressed {
		if k.Source == source {
			delete(a.compressed, k)
		}
	}
}

// repeatCompressed sends the reports again, plain, that went compressed to a
// source that has stopped to answer. One of OCM's that took its place could not
// read them, and does not know what it missed.
func (a *Agent) repeatCompressed(source string) {
	a.mu.Lock()
	again := map[Key]codec.Sequence{}
	for k, s := range a.compressed {
		if k.Source == source {
			again[k] = s
			delete(a.compressed, k)
		}
	}
	a.mu.Unlock()
	if len(again) == 0 {
		return
	}
	a.state.change(mutation{
		decide: func(d *draft) {
			for k, s := range again {
				d.unsend(k, s)
			}
		},
		done: func(err error) {
			for k, s := range again {
				if err != nil {
					a.noteCompressed(k, s)
					continue
				}
				a.queueReport(k)
			}
		},
	})
}
