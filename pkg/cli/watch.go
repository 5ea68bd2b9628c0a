package cli

import (
	"context"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// watchWorks prints what there is, and then every change, until ctx ends.
func (g *getWorks) watchWorks(ctx context.Context, p *workPrinter) error {
	s := &screen{printer: p, printed: map[string]*unstructured.Unstructured{}}
	return g.follow(ctx, workResource, g.onCluster, g.options, func(event watch.EventType, w *unstructured.Unstructured) (bool, error) {
		return false, s.see(event, w)
	})
}

// A screen is what a watch has printed so far.
type screen struct {
	printer *workPrinter
	// printed holds the outline of each work on the screen, so that a watch that
	// was interrupted does not repeat them all, and tells which are gone.
	printed map[string]*unstructured.Unstructured
	// listing is what a listing found so far; listed those of it to print.
	listing map[string]bool
	listed  []*unstructured.Unstructured
}

// see prints one event of follow.
func (s *screen) see(event watch.EventType, w *unstructured.Unstructured) error {
	if event == watch.Bookmark {
		return s.finishListing()
	}
	key := w.GetNamespace() + "/" + w.GetName()
	before := s.printed[key]
	if event == watch.Deleted {
		delete(s.printed, key)
		return s.printer.gone(w)
	}
	s.printed[key] = outline(w)
	if event == watch.Added {
		if s.listing == nil {
			s.listing = map[string]bool{}
		}
		s.listing[key] = true
	}
	switch {
	case before == nil:
	case before.GetUID() != w.GetUID():
		// It was deleted and made again while nobody watched.
		if err := s.printer.gone(before); err != nil {
			return err
		}
	case before.GetResourceVersion() == w.GetResourceVersion():
		return nil
	}
	if event == watch.Added {
		// A screenful is printed at once, with columns that fit it.
		s.listed = append(s.listed, w)
		return nil
	}
	return s.printer.each([]*unstructured.Unstructured{w})
}

// finishListing prints what a listing found, after what it did not find any more.
func (s *screen) finishListing() error {
	for _, key := range slices.Sorted(maps.Keys(s.printed)) {
		if s.listing[key] {
			continue
		}
		if err := s.printer.gone(s.printed[key]); err != nil {
			return err
		}
		delete(s.printed, key)
	}
	listed := s.listed
	s.listing, s.listed = nil, nil
	return s.printer.each(listed)
}

// outline copies of a work what is printed of it once it is gone.
func outline(w *unstructured.Unstructured) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetGroupVersionKind(w.GroupVersionKind())
	o.SetNamespace(w.GetNamespace())
	o.SetName(w.GetName())
	o.SetUID(w.GetUID())
	o.SetResourceVersion(w.GetResourceVersion())
	o.SetGeneration(w.GetGeneration())
	o.SetCreationTimestamp(w.GetCreationTimestamp())
	if conditions, found, _ := unstructured.NestedSlice(w.Object, "status", "conditions"); found {
		_ = unstructured.SetNestedSlice(o.Object, conditions, "status", "conditions")
	}
	return o
}
