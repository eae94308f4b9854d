# The protocol driven by trio: an Association owns a reader task and a writer task, and lives in a nursery.
