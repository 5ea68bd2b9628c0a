package sources

import (
	"time"
)

// A flight is a version of a work on its way: from its change until its cluster
// reported on it.
type flight struct {
	generation int64     // 0 until the work was read.
	changed    time.Time // When the source said that it changed.
	again      time.Time // When it said so last, if that was after the work was read.
	sent       time.Time // When the broker had it; zero before.
}

// changed begins a flight, or the next version of one.
func (d *Dispatcher) changed(k Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	works, ok := d.flights[k.Cluster]
	if !ok {
		works = map[string]flight{}
		d.flights[k.Cluster] = works
	}
	f, ok := works[k.ID]
	switch {
	case !ok:
		f.changed = time.Now()
	case f.generation != 0 && f.again.IsZero():
		f.again = time.Now()
	}
	works[k.ID] = f
}

// read notes which version of a work is on its way.
func (d *Dispatcher) read(k Key, generation int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.flights[k.Cluster][k.ID]
	if !ok || f.generation == generation {
		return
	}
	if !f.again.IsZero() {
		f.changed = f.again
	}
	d.flights[k.Cluster][k.ID] = flight{generation: generation, changed: f.changed}
}

// sent notes that the broker has a version.
func (d *Dispatcher) sent(k Key, generation int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.flights[k.Cluster][k.ID]
	if !ok || f.generation != generation || !f.sent.IsZero() {
		return
	}
	f.sent = time.Now()
	d.flights[k.Cluster][k.ID] = f
	d.metrics.propagation(legPublished, f.sent.Sub(f.changed))
}

// reported ends the flight of a version that its cluster reported on.
func (d *Dispatcher) reported(k Key, generation int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.flights[k.Cluster][k.ID]
	if !ok || f.generation == 0 || generation < f.generation {
		return
	}
	now := time.Now()
	if !f.sent.IsZero() {
		d.metrics.propagation(legReported, now.Sub(f.sent))
	}
	d.metrics.propagation(legTotal, now.Sub(f.changed))
	if !f.again.IsZero() {
		d.flights[k.Cluster][k.ID] = flight{changed: f.again}
		return
	}
	d.landLocked(k)
}

// land ends a flight that needs no report: the work is gone, or cannot be sent.
func (d *Dispatcher) land(k Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.landLocked(k)
}

func (d *Dispatcher) landLocked(k Key) {
	works := d.flights[k.Cluster]
	delete(works, k.ID)
	if len(works) == 0 {
		delete(d.flights, k.Cluster)
	}
}

// settleFlights ends the flights of works that the source says were reported on
// or that it does not hold: a status that did not change is not reported again.
func (d *Dispatcher) settleFlights(cluster string, held []Held) {
	d.mu.Lock()
	defer d.mu.Unlock()
	works := d.flights[cluster]
	if len(works) == 0 {
		return
	}
	open := make(map[string]struct{}, len(held))
	for _, h := range unreported(held) {
		open[h.ID] = struct{}{}
	}
	for id := range works {
		if _, ok := open[id]; !ok {
			d.landLocked(Key{cluster, id})
		}
	}
}

// oldestFlights is the age of the oldest flight to clusters that may be there,
// and of the oldest to those that are known to be away.
func (d *Dispatcher) oldestFlightsLocked(now time.Time) (flying, parked time.Duration) {
	for cluster, works := range d.flights {
		age := &flying
		if d.peers[cluster].parked() {
			age = &parked
		}
		for _, f := range works {
			*age = max(*age, now.Sub(f.changed))
		}
	}
	return flying, parked
}
