"""Do other instruments find the frequencies that masks find? Chapter `discussion`."""
