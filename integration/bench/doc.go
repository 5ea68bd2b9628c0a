// Package bench measures what applying works costs, through a real broker and
// onto a real API server. It is built with the tag bench; make bench-apply runs
// it.
//
// Times on a shared machine say little by themselves, so the agents that are
// compared take turns in one run, each pair in the other order, on the same broker and
// the same API server, with the same works from the same source; what is
// reported are medians and the median of the ratios of neighbours. Requests are
// counted by the API server, and are exact.
package bench
