// CRDs only: of the GitOps tools that docs/gitops has manifests for, and of the Prometheus operator, which the charts have objects for.
// Nothing is built.
module legion-platform.org/tests/kubernetes/crds

go 1.26.0

require (
	github.com/argoproj/argo-cd/v3 v3.2.1
	github.com/fluxcd/kustomize-controller v1.7.3
	github.com/fluxcd/source-controller v1.7.3
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
