"""Great Expectations: what data must meet, and pages that say whether it does."""
