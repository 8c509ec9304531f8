//! Questions: list, inspect, info, version. Reads records and the kernel, writes nothing.
