// Package v1alpha1 holds the API group fleetcast.io: what this project adds to
// the Open Cluster Management APIs.
//
// +kubebuilder:object:generate=true
// +groupName=fleetcast.io
package v1alpha1
