// Package nats carries events over NATS with JetStream, on a server of version
// 2.11 or later.
//
// # Address
//
// The URL is nats://host:4222, or tls://host:4222 to insist on TLS. Several
// servers of one cluster are separated by commas. User and password, or a
// token alone (nats://TOKEN@host:4222), may be in the URL; a username or a
// credentials file in the configuration is taken instead. Neither is logged.
// Query parameters, all optional:
//
//	prefix=fleetcast    the first token of all subjects and, in upper case, of the streams' names
//	window=256          events published but not confirmed; 64 for an agent, where it bounds
//	                    the events received but not settled too
//	storage=file        of the streams, or memory
//	replicas=1          of the streams
//	max-bytes=N         of each stream; unlimited by default
//	tombstone-age=720h  how long the streams keep deletions, and reports of any kind
//
// The last four are for sources, which make the streams.
//
// # Subjects and streams
//
// A topic is a subject of literal tokens, and an agent's or a source's share of
// them one prefix:
//
//	<prefix>.spec.<cluster>.<source>.<key>      stream <PREFIX>_SPEC
//	<prefix>.status.<source>.<cluster>.<key>    stream <PREFIX>_STATUS
//	<prefix>.all-clusters.<source>              no stream: at most once
//	<prefix>.all-sources.<cluster>              no stream: at most once
//
// Bytes that mean something in a subject are written as % and two hexadecimal
// digits, and an empty key as % alone.
//
// The streams keep the newest event of each subject, so a broker holds a work
// once, and who was away for a month reads what changed and no more. A full
// stream refuses new events rather than forget those of works that are alive.
//
// What is not alive is forgotten. A spec with the attribute deletiontimestamp
// is published with a lifetime (Nats-TTL) of tombstone-age, an event whose type
// ends in .resync_request or begins with io.fleetcast.v with one of ten minutes,
// and the stream of reports has tombstone-age as its max_age: a report can be
// asked for again. Who is away for longer learns the same by comparison, which
// both ends begin whenever they connect.
//
// Sources create the streams, and adapt what they depend on in those that they
// find; agents wait for them. A stream that cannot be made to forget, on
// servers before 2.11, is used as it is, with a warning. A server confirms an event when it is in the stream, but on disk
// only if it runs with sync_interval: always.
//
// # Delivery
//
// An agent has one consumer, not replicated and in memory, which the server
// forgets ten minutes after the agent went away, or 90 seconds if it has a
// Subscription.Resume. With that it is made anew at every establishment, right behind the position that the
// agent keeps; else it goes on. A source's consumer is durable. What a
// subscriber does not settle within 30 seconds the server sends again, but an
// event that the subscriber still holds is not handed over twice: it may take
// as long as it likes. One that is settled with an error comes again after a
// quarter of a second, and then ever later, up to a minute.
//
// An event that is not settled by the time its Subscribe call returns is given
// back, and delivered at once to the next. After a crash that takes the 30
// seconds, for a source; an agent starts from its position.
//
// An identity is for one process. An agent that finds its consumer replaced by
// another process says so and leaves it to that for a minute at least, ever
// longer if it goes on; one that was just started takes over at once. Two
// sources of one ID share the durable consumer, and the first says so.
//
// A consumer or a stream that disappears, as when a server lost its disk, ends
// the establishment. The next one delivers all that the stream has then.
// Positions name the stream they are of by the time of a message that its
// first source puts there, so those of a lost stream are recognised.
//
// # Who is there
//
// NATS has no wills; [brokers.Config].Will is ignored. The server tells, in
// advisories, that it has forgotten the consumer of an agent, and that is what
// Subscription.Gone hears, a minute or two after the agent went away. It says
// nothing of an agent whose client ID is not the default one, and a source may
// lack the permission, which costs it the hint and nothing else.
//
// # Permissions
//
// With the default prefix, the agent of cluster c1 with the client ID c1-client
// needs exactly the following, and can read and write nothing of another
// cluster with it. Names are spelled as in subjects.
//
//	publish:
//	  fleetcast.status.*.c1.*
//	  fleetcast.all-sources.c1
//	  $JS.API.CONSUMER.CREATE.FLEETCAST_SPEC.agent-c1-client.fleetcast.spec.c1.>
//	  $JS.API.CONSUMER.INFO.FLEETCAST_SPEC.agent-c1-client
//	  $JS.API.CONSUMER.DELETE.FLEETCAST_SPEC.agent-c1-client
//	  $JS.API.CONSUMER.MSG.NEXT.FLEETCAST_SPEC.agent-c1-client
//	  $JS.ACK.FLEETCAST_SPEC.agent-c1-client.>
//	  $JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.c1.>
//	  $JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.stream
//	  $JS.API.DIRECT.GET.FLEETCAST_STATUS.fleetcast.status.stream
//	subscribe:
//	  fleetcast.all-clusters.*
//	  _INBOX.agent-c1-client.>
//
// The source hub needs:
//
//	publish:
//	  fleetcast.spec.*.hub.*
//	  fleetcast.all-clusters.hub
//	  fleetcast.spec.stream
//	  fleetcast.status.stream
//	  $JS.API.STREAM.INFO.FLEETCAST_SPEC
//	  $JS.API.STREAM.INFO.FLEETCAST_STATUS
//	  $JS.API.STREAM.CREATE.FLEETCAST_SPEC
//	  $JS.API.STREAM.CREATE.FLEETCAST_STATUS
//	  $JS.API.STREAM.UPDATE.FLEETCAST_SPEC
//	  $JS.API.STREAM.UPDATE.FLEETCAST_STATUS
//	  $JS.API.CONSUMER.CREATE.FLEETCAST_STATUS.source-hub.fleetcast.status.hub.>
//	  $JS.API.CONSUMER.INFO.FLEETCAST_STATUS.source-hub
//	  $JS.API.CONSUMER.DELETE.FLEETCAST_STATUS.source-hub
//	  $JS.API.CONSUMER.MSG.NEXT.FLEETCAST_STATUS.source-hub
//	  $JS.ACK.FLEETCAST_STATUS.source-hub.>
//	  $JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.stream
//	  $JS.API.DIRECT.GET.FLEETCAST_STATUS.fleetcast.status.stream
//	subscribe:
//	  fleetcast.all-sources.*
//	  _INBOX.source-hub.>
//	  $JS.EVENT.ADVISORY.CONSUMER.*.FLEETCAST_SPEC.*
//
// The last is needed for Subscription.Gone only.
//
// One hole is the server's: it does not check the reply subject of a request,
// so an agent can have an event meant for itself delivered on another's
// subject. Where agents do not trust each other, give them an account of their
// own, or sign what they act on.
//
// # Metrics
//
// [Collectors] are to be registered by the program, once.
package nats
