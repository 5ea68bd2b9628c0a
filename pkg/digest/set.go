package digest

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Labels keep hashes of different meaning apart. They begin the hashed text and
// are of one length.
const (
	labelSpec   = "fleetcast/spec/1"
	labelStatus = "fleetcast/stat/1"
	labelRoot   = "fleetcast/root/1"
)

// A Set sums up works, of which each has an ID. Adding and removing take the
// same time whatever the set holds. A set counts what was added more than once,
// and removing what was not added takes it below zero until it is added: the
// sums form a group.
//
// Make one with NewSet. A Set is not safe for concurrent use.
type Set struct {
	key  Key
	sums [Buckets]sum
	len  int
}

// NewSet returns an empty set.
func NewSet(key Key) *Set { return &Set{key: key} }

// AddSpec adds what a work shall be: its generation, its content, and whether
// it is being deleted. The content of a deletion does not count.
func (s *Set) AddSpec(id string, generation int64, content Content, deleting bool) {
	s.add(id, s.hashSpec(id, generation, content, deleting))
}

// RemoveSpec undoes one AddSpec with the same arguments.
func (s *Set) RemoveSpec(id string, generation int64, content Content, deleting bool) {
	s.remove(id, s.hashSpec(id, generation, content, deleting))
}

// AddStatus adds what was last said of a work: the hash of its status, as
// reports have it.
func (s *Set) AddStatus(id, hash string) { s.add(id, s.hashStatus(id, hash)) }

// RemoveStatus undoes one AddStatus with the same arguments.
func (s *Set) RemoveStatus(id, hash string) { s.remove(id, s.hashStatus(id, hash)) }

// Len is how many works the set holds: those added less those removed.
func (s *Set) Len() int { return s.len }

// Root stands for the whole set.
func (s *Set) Root() Root {
	buf := make([]byte, 0, len(labelRoot)+keySize+8+Buckets*sumSize)
	buf = append(buf, labelRoot...)
	buf = append(buf, s.key[:]...)
	buf = binary.BigEndian.AppendUint64(buf, uint64(int64(s.len))) //nolint:gosec // Below zero in two's complement.
	for i := range s.sums {
		buf = s.sums[i].append(buf)
	}
	return sha256.Sum256(buf)
}

// Bucket is the beginning of the sum of bucket i, which is below Buckets.
func (s *Set) Bucket(i int) Short { return s.sums[i].short() }

// All is Bucket of every bucket.
func (s *Set) All() [Buckets]Short {
	var all [Buckets]Short
	for i := range s.sums {
		all[i] = s.sums[i].short()
	}
	return all
}

// BucketOf is the bucket of the work with this ID: the first byte of the ID's
// SHA-256. No key goes into it, so both ends find the works of a bucket without
// each other.
func BucketOf(id string) uint8 {
	var room [128]byte
	return sha256.Sum256(append(room[:0], id...))[0]
}

func (s *Set) add(id string, h sum) {
	bucket := &s.sums[BucketOf(id)]
	*bucket = bucket.plus(h)
	s.len++
}

func (s *Set) remove(id string, h sum) {
	bucket := &s.sums[BucketOf(id)]
	*bucket = bucket.minus(h)
	s.len--
}

func (s *Set) hashSpec(id string, generation int64, content Content, deleting bool) sum {
	var room [256]byte
	buf := s.prefix(room[:0], labelSpec, id)
	buf = binary.BigEndian.AppendUint64(buf, uint64(generation)) //nolint:gosec // Below zero in two's complement.
	if deleting {
		buf = append(buf, 1)
		content = Content{}
	} else {
		buf = append(buf, 0)
	}
	return sumOf(append(buf, content[:]...))
}

func (s *Set) hashStatus(id, hash string) sum {
	var room [256]byte
	return sumOf(appendString(s.prefix(room[:0], labelStatus, id), hash))
}

// prefix begins the hashed text. A key of fixed length before everything that a
// work can choose makes the hash unpredictable to whoever chooses.
func (s *Set) prefix(buf []byte, label, id string) []byte {
	buf = append(buf, label...)
	buf = append(buf, s.key[:]...)
	return appendString(buf, id)
}

// appendString writes the length first, so that no two lists of strings are
// written alike.
func appendString(buf []byte, s string) []byte {
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(s)))
	return append(buf, s...)
}

// sumSize is the length of a sum in bytes.
const sumSize = sha256.Size

// A sum is a number modulo 2^256, the most significant word first.
type sum [4]uint64

func sumOf(text []byte) sum {
	h := sha256.Sum256(text)
	var a sum
	for i := range a {
		a[i] = binary.BigEndian.Uint64(h[8*i:])
	}
	return a
}

func (a sum) plus(b sum) sum {
	var carry uint64
	for i := len(a) - 1; i >= 0; i-- {
		a[i], carry = bits.Add64(a[i], b[i], carry)
	}
	return a
}

func (a sum) minus(b sum) sum {
	var borrow uint64
	for i := len(a) - 1; i >= 0; i-- {
		a[i], borrow = bits.Sub64(a[i], b[i], borrow)
	}
	return a
}

func (a sum) append(buf []byte) []byte {
	for _, word := range a {
		buf = binary.BigEndian.AppendUint64(buf, word)
	}
	return buf
}

func (a sum) short() Short {
	var s Short
	binary.BigEndian.PutUint64(s[:], a[0])
	return s
}
