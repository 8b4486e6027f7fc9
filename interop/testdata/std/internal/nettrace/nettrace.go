// Package nettrace stands in for the standard library's, which only that may import.
// Package net does not see what is put into a context under its key.
package nettrace

// LookupIPAltResolverKey is the key of a function that looks up names.
type LookupIPAltResolverKey struct{}
