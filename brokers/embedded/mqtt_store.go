package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/storage"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.etcd.io/bbolt"
)

// A bucket holds one kind of record.
type bucket string

const (
	clients       bucket = "clients"
	subscriptions bucket = "subscriptions"
	queued        bucket = "queued"
	retained      bucket = "retained"
)

const (
	storeFile = "mqtt.db"

	// lockTimeout is how long to wait for another process that has the file.
	lockTimeout = 5 * time.Second
)

// An mqttStore keeps sessions on disk. Mochi's own, on the same database, does not
// keep packet numbers, so it restores one queued event per client; and it
// waits for the disk with every event. This one writes behind: a goroutine
// writes all that has changed since it last did, at once, and an event that is
// acknowledged by then never touches the disk.
type mqttStore struct {
	db   *bbolt.DB
	log  *slog.Logger
	done chan struct{}

	mu      sync.Mutex
	changes map[record][]byte // Nil for a deletion.
	wake    chan struct{}
	closed  bool
	told    string
	lastErr error
}

type record struct {
	bucket bucket
	key    string
}

func openMQTTStore(dir string, log *slog.Logger) (*mqttStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	file := filepath.Join(dir, storeFile)
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, fmt.Errorf("open %s, which may be in use by another process: %w", file, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range []bucket{clients, subscriptions, queued, retained} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", file, err), db.Close())
	}
	s := &mqttStore{db: db, log: log, done: make(chan struct{}), changes: make(map[record][]byte), wake: make(chan struct{}, 1)}
	go s.run()
	return s, nil
}

// run writes until close.
func (s *mqttStore) run() {
	defer close(s.done)
	for range s.wake {
		s.mu.Lock()
		changes, closed := s.changes, s.closed
		s.changes = make(map[record][]byte)
		s.mu.Unlock()
		err := s.write(changes)
		s.mu.Lock()
		s.lastErr = err
		if err != nil && s.told != err.Error() {
			s.told = err.Error()
			s.log.Error("cannot write sessions to disk, they would not survive a restart", "file", s.db.Path(), "err", err)
		}
		if err != nil && !closed {
			// What has changed since is newer.
			for r, value := range changes {
				if _, ok := s.changes[r]; !ok {
					s.changes[r] = value
				}
			}
		}
		s.mu.Unlock()
		if closed {
			return
		}
	}
}

func (s *mqttStore) write(changes map[record][]byte) error {
	if len(changes) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for r, value := range changes {
			b := tx.Bucket([]byte(r.bucket))
			var err error
			if value == nil {
				err = b.Delete([]byte(r.key))
			} else {
				err = b.Put([]byte(r.key), value)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", r.bucket, err)
			}
		}
		return nil
	})
}

func (s *mqttStore) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	return errors.Join(s.lastErr, s.db.Close())
}

func (s *mqttStore) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *mqttStore) put(b bucket, key string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		// Mochi's records are made of strings, numbers and bytes.
		s.log.Error("cannot encode a record of a session", "bucket", string(b), "err", err)
		return
	}
	s.set(b, key, data)
}

func (s *mqttStore) set(b bucket, key string, data []byte) {
	s.mu.Lock()
	s.changes[record{b, key}] = data
	s.mu.Unlock()
	s.signal()
}

// stored reads all records of a bucket.
func stored[T any](s *mqttStore, b bucket) ([]T, error) {
	var all []T
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(b)).ForEach(func(key, value []byte) error {
			var one T
			if err := json.Unmarshal(value, &one); err != nil {
				return fmt.Errorf("read %s %q: %w", b, key, err)
			}
			all = append(all, one)
			return nil
		})
	})
	return all, err
}

// queuedKey keeps clients apart: no client ID has a zero byte.
func queuedKey(client string, number uint16) string {
	return string(binary.BigEndian.AppendUint16(append([]byte(client), 0), number))
}

func subscriptionKey(client, filter string) string { return client + "\x00" + filter }

func (s *mqttStore) putClient(cl *mqtt.Client) {
	p := cl.Properties.Props
	s.put(clients, cl.ID, storage.Client{
		ID:              cl.ID,
		T:               storage.ClientKey,
		Remote:          cl.Net.Remote,
		Listener:        cl.Net.Listener,
		Username:        cl.Properties.Username,
		Clean:           cl.Properties.Clean,
		ProtocolVersion: cl.Properties.ProtocolVersion,
		Properties: storage.ClientProperties{
			SessionExpiryInterval:     p.SessionExpiryInterval,
			SessionExpiryIntervalFlag: p.SessionExpiryIntervalFlag,
			RequestProblemInfo:        p.RequestProblemInfo,
			RequestProblemInfoFlag:    p.RequestProblemInfoFlag,
			RequestResponseInfo:       p.RequestResponseInfo,
			TopicAliasMaximum:         p.TopicAliasMaximum,
			MaximumPacketSize:         p.MaximumPacketSize,
			User:                      p.User,
		},
	})
}

func (s *mqttStore) deleteClient(id string) { s.set(clients, id, nil) }

func (s *mqttStore) putSubscription(client string, sub packets.Subscription, qos byte) {
	s.put(subscriptions, subscriptionKey(client, sub.Filter), storage.Subscription{
		T:                 storage.SubscriptionKey,
		Client:            client,
		Filter:            sub.Filter,
		Identifier:        sub.Identifier,
		RetainHandling:    sub.RetainHandling,
		Qos:               qos,
		RetainAsPublished: sub.RetainAsPublished,
		NoLocal:           sub.NoLocal,
	})
}

func (s *mqttStore) deleteSubscription(client, filter string) {
	s.set(subscriptions, subscriptionKey(client, filter), nil)
}

func (s *mqttStore) putQueued(client string, pk packets.Packet, sent int64) {
	m := storedMessage(pk)
	m.T, m.Client, m.Sent = storage.InflightKey, client, sent
	s.put(queued, queuedKey(client, pk.PacketID), m)
}

func (s *mqttStore) deleteQueued(client string, number uint16) {
	s.set(queued, queuedKey(client, number), nil)
}

func (s *mqttStore) putRetained(pk packets.Packet) {
	m := storedMessage(pk)
	m.T = storage.RetainedKey
	s.put(retained, pk.TopicName, m)
}

func (s *mqttStore) deleteRetained(topic string) { s.set(retained, topic, nil) }

func storedMessage(pk packets.Packet) storage.Message {
	p := pk.Properties
	return storage.Message{
		FixedHeader: pk.FixedHeader,
		PacketID:    pk.PacketID,
		TopicName:   pk.TopicName,
		Payload:     pk.Payload,
		Origin:      pk.Origin,
		Created:     pk.Created,
		Properties: storage.MessageProperties{
			PayloadFormat:         p.PayloadFormat,
			PayloadFormatFlag:     p.PayloadFormatFlag,
			MessageExpiryInterval: p.MessageExpiryInterval,
			ContentType:           p.ContentType,
			ResponseTopic:         p.ResponseTopic,
			CorrelationData:       p.CorrelationData,
			User:                  p.User,
		},
	}
}
