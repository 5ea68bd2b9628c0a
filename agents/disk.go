package agents

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fxamacker/cbor/v2"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/fleetcast-io/fleetcast/codec"
)

// ErrStoreInUse is wrapped by OpenDisk when another process has the store open.
var ErrStoreInUse = errors.New("agent store is in use")

// ErrStoreForeign is wrapped by OpenDisk for a store that belongs to another
// cluster, or that a newer version wrote. It is left as it is.
var ErrStoreForeign = errors.New("agent store is not this agent's")

const (
	diskFile   = "agent.db"
	diskFormat = "1"
)

var (
	bucketWorks = []byte("works")
	bucketMeta  = []byte("meta")

	metaFormat   = []byte("format")
	metaCluster  = []byte("cluster")
	metaSequence = []byte("sequence")
	metaCursor   = []byte("cursor")
	metaPeer     = []byte("peer/") // Before a source's ID.
)

// Disk is a Store in one bbolt file. A commit is on the disk, synced, when it
// returns.
type Disk struct {
	db *bolt.DB
}

// OpenDisk opens the store of one cluster's agent in dir, which it creates if
// it is missing. It waits a few seconds for a process that is just ending.
func OpenDisk(dir, cluster string) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the agent's data directory: %w", err)
	}
	path := filepath.Join(dir, diskFile)
	const patience = 10 * time.Second
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: patience, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s is locked: stop the other agent or choose another data directory", ErrStoreInUse, path)
	case err != nil:
		return nil, fmt.Errorf("open agent store %s: %w", path, err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { return claim(tx, cluster) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open agent store %s: %w", path, err), db.Close())
	}
	return &Disk{db: db}, nil
}

// claim writes whose store this is, or checks it.
func claim(tx *bolt.Tx, cluster string) error {
	if _, err := tx.CreateBucketIfNotExists(bucketWorks); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	for _, own := range []struct {
		key  []byte
		want string
	}{{metaFormat, diskFormat}, {metaCluster, cluster}} {
		switch have := meta.Get(own.key); {
		case have == nil:
			if err := meta.Put(own.key, []byte(own.want)); err != nil {
				return err
			}
		case string(have) != own.want:
			return fmt.Errorf("%w: its %s is %q, not %q", ErrStoreForeign, own.key, have, own.want)
		}
	}
	return nil
}

// Load implements Store. A record that cannot be read is an error: to go on
// without it would be to forget what must not be forgotten.
func (d *Disk) Load() (State, error) {
	s := State{Works: map[Key]*Record{}, Peers: map[string]Peer{}}
	err := d.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if b := meta.Get(metaSequence); len(b) == 8 {
			s.Sequence = codec.Sequence(binary.BigEndian.Uint64(b)) //nolint:gosec // Written from a Sequence.
		}
		s.Cursor = string(meta.Get(metaCursor))
		if err := loadPeers(meta, s.Peers); err != nil {
			return err
		}
		return tx.Bucket(bucketWorks).ForEach(func(k, v []byte) error {
			source, id, ok := bytes.Cut(k, []byte{0})
			if !ok {
				return fmt.Errorf("key %q has no source", k)
			}
			r := new(Record)
			if err := decoding.Unmarshal(v, r); err != nil {
				return fmt.Errorf("record of work %s: %w", id, err)
			}
			s.Works[Key{string(source), string(id)}] = r
			return nil
		})
	})
	if err != nil {
		return State{}, fmt.Errorf("read agent store %s: %w", d.db.Path(), err)
	}
	return s, nil
}

// loadPeers reads what is known of sources. A store that was last written before
// there was any such knowledge has none.
func loadPeers(meta *bolt.Bucket, into map[string]Peer) error {
	c := meta.Cursor()
	for k, v := c.Seek(metaPeer); bytes.HasPrefix(k, metaPeer); k, v = c.Next() {
		source := string(k[len(metaPeer):])
		var p Peer
		if err := decoding.Unmarshal(v, &p); err != nil {
			return fmt.Errorf("what is known of source %s: %w", source, err)
		}
		into[source] = p
	}
	return nil
}

// Commit implements Store.
func (d *Disk) Commit(c Changes) error {
	err := d.db.Update(func(tx *bolt.Tx) error {
		meta, works := tx.Bucket(bucketMeta), tx.Bucket(bucketWorks)
		for k, r := range c.Works {
			name := append(append(append(make([]byte, 0, len(k.Source)+1+len(k.ID)), k.Source...), 0), k.ID...)
			if r == nil {
				if err := works.Delete(name); err != nil {
					return err
				}
				continue
			}
			value, err := encoding.Marshal(r)
			if err != nil {
				return fmt.Errorf("record of work %s: %w", k.ID, err)
			}
			if err := works.Put(name, value); err != nil {
				return err
			}
		}
		for source, p := range c.Peers {
			value, err := encoding.Marshal(p)
			if err != nil {
				return fmt.Errorf("what is known of source %s: %w", source, err)
			}
			if err := meta.Put(append(bytes.Clone(metaPeer), source...), value); err != nil {
				return err
			}
		}
		sequence := binary.BigEndian.AppendUint64(nil, uint64(c.Sequence)) //nolint:gosec // Read back as a Sequence.
		if err := meta.Put(metaSequence, sequence); err != nil {
			return err
		}
		return meta.Put(metaCursor, []byte(c.Cursor))
	})
	if err != nil {
		return fmt.Errorf("write agent store %s: %w", d.db.Path(), err)
	}
	return nil
}

// Close implements Store.
func (d *Disk) Close() error { return d.db.Close() }

// Records are CBOR: compact, and byte strings stay as they are, which JSON
// within JSON would not.
var (
	encoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode())
	decoding = must(cbor.DecOptions{MaxNestedLevels: 16}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // The options above are constants.
	}
	return v
}
