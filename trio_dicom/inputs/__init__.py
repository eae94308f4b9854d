# What a sender is given: paths, folders, archives, file sets, data sets and streams, as items that can be opened.
