"""The claims about modularity: what is asked, how it is decided, and what a run found."""
