package mqtt

import "fmt"

// Reason codes of MQTT 5 (section 2.4) that the driver acts on.
const (
	normalDisconnection   = 0x00
	disconnectWithWill    = 0x04
	noMatchingSubscribers = 0x10
	refused               = 0x80 // This and all above are errors.
	badCredentials        = 0x86
	notAuthorized         = 0x87
	banned                = 0x8a
	badAuthMethod         = 0x8c
	sessionTakenOver      = 0x8e
	packetTooLarge        = 0x95
	useAnotherServer      = 0x9c
	serverMoved           = 0x9d
)

var reasons = map[byte]string{
	0x04: "disconnected with will message",
	0x80: "unspecified error",
	0x81: "malformed packet",
	0x82: "protocol error",
	0x83: "implementation specific error",
	0x84: "unsupported protocol version",
	0x85: "client identifier not valid",
	0x86: "bad user name or password",
	0x87: "not authorized",
	0x88: "server unavailable",
	0x89: "server busy",
	0x8a: "banned",
	0x8b: "server shutting down",
	0x8c: "bad authentication method",
	0x8d: "keep alive timeout",
	0x8e: "session taken over",
	0x8f: "topic filter invalid",
	0x90: "topic name invalid",
	0x91: "packet identifier in use",
	0x93: "receive maximum exceeded",
	0x94: "topic alias invalid",
	0x95: "packet too large",
	0x96: "message rate too high",
	0x97: "quota exceeded",
	0x98: "administrative action",
	0x99: "payload format invalid",
	0x9a: "retain not supported",
	0x9b: "QoS not supported",
	0x9c: "use another server",
	0x9d: "server moved",
	0x9e: "shared subscriptions not supported",
	0x9f: "connection rate exceeded",
	0xa0: "maximum connect time",
	0xa1: "subscription identifiers not supported",
	0xa2: "wildcard subscriptions not supported",
}

// describe says what a reason code means, and adds what the broker said about
// it.
func describe(code byte, said string) string {
	meaning, ok := reasons[code]
	if !ok {
		meaning = "unknown reason"
	}
	if said == "" || said == meaning {
		return fmt.Sprintf("%s (0x%02X)", meaning, code)
	}
	return fmt.Sprintf("%s (0x%02X): %s", meaning, code, clip(said))
}

// advice is what an operator can do about a reason for which the broker does
// not let us in, or "".
func advice(code byte) string {
	switch code {
	case badCredentials, badAuthMethod:
		return "check username, password file and client certificate against the broker's users"
	case notAuthorized, banned:
		return "allow this client to connect in the broker's access control list"
	case sessionTakenOver:
		return "run only one process per client ID, or give each its own"
	case useAnotherServer, serverMoved:
		return "change the broker URL"
	}
	return ""
}
