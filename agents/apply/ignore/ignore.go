// Package ignore removes from a manifest the fields that its work leaves to
// others: serverSideApply.ignoreFields of a ManifestWork.
//
// Expressions come from whoever writes works, so what one may cost is bounded:
// its length, the number of fields that it may name, and for jq the functions
// that it may call and the time. An expression is only ever asked where the
// fields are; no expression computes a value that reaches the cluster.
//
// No error holds content of a manifest.
package ignore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	workv1 "open-cluster-management.io/api/work/v1"
)

const (
	// Budget is the time that one jq expression may take with one manifest.
	Budget = 50 * time.Millisecond

	mostExpressions = 64   // Of one manifest.
	longest         = 1024 // Bytes of one expression.
	mostPaths       = 2000 // Fields that one expression may name.
	mostCompiled    = 500  // Lists of expressions that a Compiler remembers.
)

// ErrBudget is wrapped by Remove when an expression took longer than Budget. The
// machine may have been busy, so another try may do.
var ErrBudget = fmt.Errorf("it takes longer than %v", Budget)

// A Compiler reads ignoreFields, and remembers what it read. The zero value is
// ready for use, by several goroutines at the same time.
type Compiler struct {
	mu   sync.Mutex
	read map[string]*Fields
}

// Fields are what a work ignores of a manifest. They do not change.
type Fields struct {
	sum         string
	expressions []expression
}

type expression struct {
	condition workv1.IgnoreFieldsCondition
	text      string
	selector  selector
}

// A selector removes what an expression names from object, in place.
type selector interface {
	remove(ctx context.Context, object map[string]any) error
}

// Compile reads the fields. It returns nil for none. An error says which
// expression cannot be used, and why.
func (c *Compiler) Compile(fields []workv1.IgnoreField) (*Fields, error) {
	if len(fields) == 0 {
		return nil, nil
	}
	canonical, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("read ignoreFields: %w", err)
	}
	sum := sha256.Sum256(canonical)
	key := hex.EncodeToString(sum[:16])

	c.mu.Lock()
	known := c.read[key]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	f, err := compile(fields)
	if err != nil {
		return nil, err
	}
	f.sum = key
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read == nil || len(c.read) >= mostCompiled {
		c.read = make(map[string]*Fields)
	}
	c.read[key] = f
	return f, nil
}

func compile(fields []workv1.IgnoreField) (*Fields, error) {
	f := &Fields{}
	for _, field := range fields {
		condition := field.Condition
		switch condition {
		case "":
			condition = workv1.IgnoreFieldsConditionOnSpokePresent
		case workv1.IgnoreFieldsConditionOnSpokePresent, workv1.IgnoreFieldsConditionOnSpokeChange:
		default:
			return nil, fmt.Errorf("ignoreFields.condition %.64q is not known", string(condition))
		}
		for _, kind := range []struct {
			name  string
			texts []string
			read  func(string) (selector, error)
		}{
			{"jsonPaths", field.JSONPaths, readJSONPath},
			{"jsonPointers", field.JSONPointers, readPointer},
			{"jqPathExpressions", field.JQPathExpressions, readJQ},
		} {
			for _, text := range kind.texts {
				if len(f.expressions) >= mostExpressions {
					return nil, fmt.Errorf("ignoreFields has more than %d expressions", mostExpressions)
				}
				if len(text) > longest {
					return nil, fmt.Errorf("%s: an expression has %d bytes, at most %d are allowed", kind.name, len(text), longest)
				}
				s, err := kind.read(text)
				if err != nil {
					return nil, fmt.Errorf("%s %q: %w", kind.name, text, err)
				}
				f.expressions = append(f.expressions, expression{condition, kind.name + " " + fmt.Sprintf("%q", text), s})
			}
		}
	}
	return f, nil
}

// Sum identifies the fields; that of nil is empty.
func (f *Fields) Sum() string {
	if f == nil {
		return ""
	}
	return f.sum
}

// Remove takes the fields of one condition out of object, in place. Those that
// it does not have are no error. After an error object is of no use.
func (f *Fields) Remove(ctx context.Context, object map[string]any, condition workv1.IgnoreFieldsCondition) error {
	if f == nil {
		return nil
	}
	was := identityOf(object)
	for _, e := range f.expressions {
		if e.condition != condition {
			continue
		}
		if err := e.selector.remove(ctx, object); err != nil {
			return fmt.Errorf("%s: %w", e.text, err)
		}
		if identityOf(object) != was {
			return fmt.Errorf("%s: %w", e.text, errIdentity)
		}
	}
	return nil
}

var errIdentity = errors.New("apiVersion, kind, metadata.name and metadata.namespace cannot be ignored: they say which object is meant")

// identityOf returns the fields without which it is not known which object is
// meant.
func identityOf(object map[string]any) [4]any {
	metadata, _ := object["metadata"].(map[string]any)
	id := [4]any{object["apiVersion"], object["kind"], metadata["name"], metadata["namespace"]}
	for i, v := range id {
		if _, ok := v.(string); !ok {
			id[i] = nil // What is no string cannot be compared, and identifies nothing.
		}
	}
	return id
}
