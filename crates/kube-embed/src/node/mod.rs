//! A node that runs pods: an API client like any kubelet.
