package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/codec"
)

// Keys of the ConfigMap that keeps the lifetime.
const (
	epochKey = "epoch"
	termKey  = "term"
)

// Begin implements sources.Lifetime. Epoch and term are in the ConfigMap
// fleetcast-hub-<source>: where the ConfigMaps are lost, so are the works.
func (s *Source) Begin(ctx context.Context, above int64) (epoch string, term int64, err error) {
	name := client.ObjectKey{Namespace: s.namespace, Name: "fleetcast-hub-" + s.id}
	for range writeAttempts {
		epoch, term, err = s.begin(ctx, name, above)
		if err == nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if err != nil {
		return "", 0, fmt.Errorf("begin a lead in ConfigMap %s: %w", name, err)
	}
	return epoch, term, nil
}

func (s *Source) begin(ctx context.Context, name client.ObjectKey, above int64) (epoch string, term int64, err error) {
	if above >= codec.MaxTerm {
		return "", 0, errors.New("there is no higher term than the one that agents know")
	}
	// Not from a cache: it lags behind, and would hold all ConfigMaps.
	have := &corev1.ConfigMap{}
	err = s.live.Get(ctx, name, have)
	if err != nil && !apierrors.IsNotFound(err) {
		return "", 0, err
	}
	exists := err == nil
	var last int64
	if text, ok := have.Data[termKey]; ok {
		if last, err = strconv.ParseInt(text, 10, 64); err != nil || last < 0 || last >= codec.MaxTerm {
			return "", 0, fmt.Errorf("%s %.40q is not a term: correct it, or delete the ConfigMap to begin again", termKey, text)
		}
	}
	if epoch = have.Data[epochKey]; epoch == "" {
		epoch = rand.Text()
	}
	term = max(last, above) + 1
	if have.Data == nil {
		have.Data = map[string]string{}
	}
	have.Data[epochKey], have.Data[termKey] = epoch, strconv.FormatInt(term, 10)
	if !exists {
		have.Namespace, have.Name = name.Namespace, name.Name
		return epoch, term, s.writer.Create(ctx, have, client.FieldOwner(fieldManager))
	}
	// The version in it makes this fail if another replica was faster.
	return epoch, term, s.writer.Update(ctx, have, client.FieldOwner(fieldManager))
}
