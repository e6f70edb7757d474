// CRDs only: those of the GitOps tools with manifests in docs/guides/gitops, and those of the Prometheus operator, because
// the charts have objects for it. Nothing is built.
module legion-platform.org/tests/kubernetes/crds

go 1.26.0

require (
	github.com/argoproj/argo-cd/v3 v3.2.1
	github.com/fluxcd/kustomize-controller v1.7.3
	github.com/fluxcd/source-controller v1.7.3
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
