//! sliverfs runs many LXC containers ("slivers") on one shared read-only base image.
