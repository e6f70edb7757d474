//! What runs beside the trainer in its pod: fetch and publish.
