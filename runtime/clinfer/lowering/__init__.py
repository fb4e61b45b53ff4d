"""Graph to plan: operator table, kernel choice, memory plan."""
