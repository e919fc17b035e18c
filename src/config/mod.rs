//! What the operator wants: UCI text, sections, typed configuration.
