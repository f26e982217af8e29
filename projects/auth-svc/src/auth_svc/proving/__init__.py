"""What a sign-in has proven so far: by which methods, after how many wrong tries, and what is still to come."""
