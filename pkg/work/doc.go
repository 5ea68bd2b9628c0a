// Package work is the hub's side of ManifestWorks beside their dispatch: what a
// work must be, and when a finished one goes.
//
// What a work must be is said twice. [Policies] have the API server refuse the
// rest when somebody writes it, without a webhook: an admission policy runs inside
// the API server, so it is there when the hub is not. [Limits] are for what the
// policies cannot know or let pass, and for hubs without them: the dispatcher asks
// before it sends a work. The rules are the same but for the executor, which only
// admission can judge, because only it knows who asks.
//
// The rules, and the order in which they are told:
//
//   - There is a manifest, and each is an object with apiVersion, kind and
//     metadata.name, and without metadata.generateName.
//   - No two manifests are the same object: group, kind, namespace and name. OCM
//     compares the version of the API as well, and lets an object pass twice.
//   - The manifests together have at most so many bytes of JSON.
//   - spec.deleteOption.ttlSecondsAfterFinished is not negative.
//   - Who sets spec.executor may execute as it.
//
// A finished work that names a time to live is deleted by [AddExpiry].
package work
