// CRDs only, of which the charts' tests have need; nothing is built.
module legion-platform.org/tests/kubernetes/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
