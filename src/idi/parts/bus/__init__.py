"""The bus: events of a type in a topic, a module's place in it as a subscription."""
