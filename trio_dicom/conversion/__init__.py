# What changes an object before it is sent: a transform of the caller's, and the transcoding of pixels.
