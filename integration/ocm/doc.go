// Package ocm tests on the wire that this project's ends work with peers that
// speak Open Cluster Management's CloudEvents protocol over MQTT and know
// nothing of this project.
//
// The peers are written down here from that protocol, on a bare MQTT client:
// a clean session, automatic acknowledgements, nothing remembered by the broker
// while they are away. What they send are the events that OCM's own codecs
// made (codec/testdata/ocm), with other names and versions in them; what they
// receive they read without this project's codec, so that an error in it cannot
// cancel itself out.
//
// The broker is the embedded one; with the build tag integration every case
// runs against mosquitto, too.
package ocm
