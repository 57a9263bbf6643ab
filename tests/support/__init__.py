"""What the test modules share. No test lives here; `programs` has what tests run in processes of their own."""
