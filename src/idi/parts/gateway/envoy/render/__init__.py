"""From a view of traffic to Envoy's typed resources. Pure: the same view gives the same bytes."""
