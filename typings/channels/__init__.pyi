"""What loadtests/peers uses of Django Channels; it is installed only beside the peers."""
