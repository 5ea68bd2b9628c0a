// Package fleet runs many clusters on one machine, to see what a fleet of their
// number does and what it costs.
//
// # What is real, and what is not
//
// Real are the agents' engine with its store, codec, digests and queues, the
// broker's driver, the hub's dispatcher, and the broker, which is a process of
// its own. Each agent has a connection of its own to it.
//
// Simulated is what lies behind the two ends. The hub's works are in memory
// ([memory.Source]) and not in an API server. A cluster takes what its agent
// applies after a delay, refuses some of it, loses some of it later, and is
// away at times, as its [Behaviour] and the fleet's seed say. All agents and the
// hub are in one process, so that their memory and processor time are told
// together.
//
// # What is counted
//
// A work counts once the source holds the status of its newest generation, with
// Applied being true. That nothing was lost is not taken from that count: in the
// end both ends are summed up independently, what the source holds and what the
// clusters were made to run, and the sums have to be equal ([Fleet.Prove]).
package fleet
