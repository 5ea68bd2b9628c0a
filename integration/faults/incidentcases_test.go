package faults

// What happened to others.
var incidentCases = []faultCase{}
