package apply

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// compare holds an object that was just read against the version that it had
// before it was read. Is it older, the cluster's store was replaced by an older
// one.
func (w *watches) compare(before uint64, live metav1.Object) {
	if version, ok := parseVersion(live.GetResourceVersion()); ok && version < before {
		w.rewound()
	}
}

// rewound begins all watches anew. One that goes on from a version that is yet
// to come stays silent until then.
func (w *watches) rewound() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var tell []workKey
	for key, old := range w.targets {
		w.stop(old)
		t := &target{gvr: old.gvr, namespace: old.namespace, pinned: old.pinned}
		w.targets[key] = t
		w.index.mu.Lock()
		if w.register.target == old {
			w.register.target = t
		}
		w.index.rewind(old)
		t.objects, old.objects = old.objects, nil
		for id := range t.objects {
			w.index.records[id].target = t
		}
		tell = append(tell, usersOf(w.index, t)...)
		w.index.mu.Unlock()
	}
	for _, t := range w.targets {
		w.start(t)
	}
	w.log.Warn("the API server's resource versions went back, as after a restore from a backup; looking at every applied object")
	w.bell.ring(tell...)
}

// rewind forgets in which versions the objects of t were: the server counts
// anew. The caller holds mu.
func (x *index) rewind(t *target) {
	for id := range t.objects {
		r := x.records[id]
		r.version, r.seen, r.gone = 0, 0, false
	}
	t.latest = 0
}
